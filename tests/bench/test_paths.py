"""Every path that a user names: what it is for is declared, and checked before any work."""

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

import fastppo
from fastppo import cli, paths
from fastppo.bench import __main__ as bench
from fastppo.bench.gate import __main__ as gate
from fastppo.errors import UserError

TREE = Path(fastppo.__file__).resolve().parent.parent
COMMANDS = {
    **{module: f"bench {name}" for name, (module, _) in bench.COMMANDS.items()},
    **{module: name for name, (module, _) in bench.UPPER.items()},
    **{module: f"gate {name}" for name, (module, _) in gate.COMMANDS.items()},
    "fastppo.bench.static.command": "static",
    "fastppo.bench.gpu_check.command": "gpu-check",
}
"""Words of the command line by the module that serves them."""


def sources() -> Iterator[tuple[str, str]]:
    """Module and text of every file that ships."""
    for package in ("fastppo", "bench"):
        for file in sorted((TREE / package).rglob("*.py")):
            name = ".".join(file.relative_to(TREE).with_suffix("").parts)
            if "kernels" not in file.relative_to(TREE).parts[:2] or package == "bench":
                yield name if package == "fastppo" else f"fastppo.{name}", file.read_text()


def parser_of(module: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    importlib.import_module(module).add_arguments(parser)
    return parser


WRITING = [
    (module, action.option_strings[-1], action.type is paths.folder)
    for module in COMMANDS
    for action in paths.actions(parser_of(module))
    if action.type in paths.WRITTEN
]


def test_no_command_is_missing_from_the_walk() -> None:
    serving = {name for name, text in sources() if "\ndef add_arguments(" in text}

    assert serving == set(COMMANDS)
    assert WRITING


def test_every_path_says_what_it_is_for() -> None:
    for name, text in sources():
        assert not re.search(r"type=(pathlib\.)?Path\b", text), name
    for module in COMMANDS:
        for action in paths.actions(parser_of(module)):
            wants_path = action.metavar in ("F", "FILE", "FILES", "DIR", "A.json", "B.json")
            assert not wants_path or action.type in (paths.source, *paths.WRITTEN), action


def test_every_path_of_a_dataclass_says_what_it_is_for() -> None:
    from fastppo.bench.profile.command import ProfileArgs

    arguments = [cli.TrainArgs, cli.EvalArgs, cli.DoctorArgs, ProfileArgs]
    found = re.compile(r"tyro\.cli\((\w+)|settings\.(?:parse|resolve)\((\w+)")
    named = {name for _, text in sources() for pair in found.findall(text) for name in pair if name}
    assert named - {"kind"} == {kind.__name__ for kind in arguments}

    for kind in arguments:
        assert is_dataclass(kind)
        hints = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            if "Path" in str(hints[field.name]):
                roles = getattr(hints[field.name], "__metadata__", ())
                assert any(role in (paths.source, *paths.WRITTEN) for role in roles), field.name


@pytest.fixture
def never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in COMMANDS:
        served = importlib.import_module(module)
        for name in ("run", "_run"):
            if hasattr(served, name):
                monkeypatch.setattr(served, name, lambda *_: pytest.fail("it began to work"))


def words_of(module: str, source: Path) -> list[str]:
    """The least that the command takes, its first inputs being `source`."""
    words = shlex.split(COMMANDS[module])
    for action in parser_of(module)._actions:
        if not action.option_strings and action.nargs not in ("*", "?"):
            words.append(str(source) if action.type is paths.source else "CartPole-v1")
    return words


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.main(words)
    out, error = capsys.readouterr()
    assert (code, out) == (2, ""), error
    assert re.fullmatch("fastppo: error: [^\n]+\n", error), error
    return error


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(("module", "option", "is_folder"), WRITING)
def test_what_cannot_be_written_is_told_before_any_work(
    module: str,
    option: str,
    is_folder: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "to-itself").symlink_to(tmp_path / "to-itself")
    words = words_of(module, tmp_path / "in.json")
    places = [tmp_path / "file" / "x", Path("/proc/x"), tmp_path / ("x" * 300)]
    places += [tmp_path / "file"] if is_folder else [tmp_path, tmp_path / "none" / "x"]
    places += [tmp_path / "to-itself" / "x"]
    before = sorted(os.listdir(tmp_path))

    for place in places:
        assert option in refused([*words, option, str(place)], capsys)

    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(("module", "option", "is_folder"), WRITING)
def test_an_output_is_no_input_however_it_is_spelled(
    module: str,
    option: str,
    is_folder: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "in.json"
    source.write_text("{}")
    os.link(source, "hard.json")
    Path("soft.json").symlink_to(source)
    Path("folder").symlink_to(tmp_path)
    reading = [action for action in parser_of(module)._actions if action.type is paths.source]
    if not reading or is_folder:
        pytest.skip("it reads no file that the user names")
    words = words_of(module, source)
    if str(source) not in words:
        words += [reading[0].option_strings[-1], str(source)]

    for spelled in ("in.json", "./in.json", "folder/in.json", "hard.json", "soft.json"):
        told = refused([*words, option, spelled], capsys)
        assert f"{option}: {Path(spelled)} is an input" in told
    assert source.read_text() == "{}"


PAIRS = [
    (module, one, other)
    for module, one, _ in WRITING
    for also, other, _ in WRITING
    if module == also and one < other
]


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(("module", "one", "other"), PAIRS)
def test_two_outputs_never_share_a_path(
    module: str,
    one: str,
    other: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(module, tmp_path / "in.json")

    told = refused([*words, one, "x", other, str(tmp_path / "." / "x")], capsys)

    assert all(part in told for part in ("is named twice", one, other))


def test_a_run_directory_that_cannot_be_made_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept")
    monkeypatch.setitem(sys.modules, "fastppo.run.session", None)  # importing it fails

    for place in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        told = refused(["train", "CartPole-v1", "--run-dir", str(place)], capsys)
        assert "--run-dir" in told


def test_streams_are_written_through_and_may_be_shared(tmp_path: Path) -> None:
    null, out = Path("/dev/null"), Path("/dev/stdout")
    (tmp_path / "in.json").write_text("{}")

    paths.check_apart([("--html", null), ("--md", null), ("--json", out)], [null])
    paths.check_output(null, "--md")


def test_standard_output_that_leads_to_an_input_is_an_input(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text("{}")
    with path.open("a") as file:
        behind = Path(f"/proc/self/fd/{file.fileno()}")

        with pytest.raises(UserError, match="is an input"):
            paths.check_apart([("--md", behind)], [path])


def test_a_file_in_the_way_of_one_within_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "profile.json").mkdir()

    with pytest.raises(UserError, match=r"profile\.json is a folder"):
        paths.check_folder(tmp_path, "--out", ("trace.json.gz", "profile.json"))
    paths.check_folder(tmp_path / "new" / "er", "--out", ("profile.json",))
    assert os.listdir(tmp_path) == ["profile.json"]
