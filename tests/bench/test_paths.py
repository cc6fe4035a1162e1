"""Every path that a user names: what it is for is declared, and checked before any work."""

import ast
import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pytest
import tyro

import fastppo
from fastppo import cli, paths
from fastppo.errors import UserError
from fastppo.shell import Command, load

TREE = Path(fastppo.__file__).resolve().parent.parent


def sources() -> Iterator[tuple[str, str]]:
    """Module and text of every file that ships."""
    for package in ("fastppo", "bench"):
        for file in sorted((TREE / package).rglob("*.py")):
            name = ".".join(file.relative_to(TREE).with_suffix("").parts)
            if "kernels" not in file.relative_to(TREE).parts[:2] or package == "bench":
                yield name if package == "fastppo" else f"fastppo.{name}", file.read_text()


class Argument(NamedTuple):
    option: str
    role: paths.Role | None
    is_positional: bool
    is_required: bool


def arguments_of(command: Command) -> Iterator[Argument]:
    kind = load(command.args)
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        notes = getattr(hints[field.name], "__metadata__", ())
        metavars = [note.metavar for note in notes if hasattr(note, "metavar")]
        is_positional = tyro.conf.Positional in notes
        option = metavars[0] if is_positional else f"--{field.name.replace('_', '-')}"
        role = next((note for note in notes if isinstance(note, paths.Role)), None)
        is_required = field.default is MISSING and not str(metavars[0]).startswith("[")
        yield Argument(option, role, is_positional, is_required)


def named(value: object) -> str | None:
    return value.name if isinstance(value, Command) else None


WRITING = [
    (command, argument.option, argument.role is paths.Role.FOLDER)
    for command in cli.COMMANDS
    for argument in arguments_of(command)
    if argument.role in (paths.Role.OUTPUT, paths.Role.FOLDER)
]


def test_every_command_is_in_the_table_and_described() -> None:
    shared = {"Options", "Outputs", "RunArgs", "SimulationArgs"}
    classes = {
        f"{name}:{node.name}": node
        for name, text in sources()
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and (node.name.endswith("Args") or node.name in shared)
    }

    own = {name for name in classes if name.partition(":")[2] not in shared}
    assert own == {command.args for command in cli.COMMANDS}
    for name, node in classes.items():
        assert ast.get_docstring(node), name
        for field, behind in pairwise([*node.body, None]):
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field):
                assert isinstance(behind, ast.Expr), f"{name}: {ast.unparse(field)}"
    for command in cli.COMMANDS:
        assert callable(load(command.run))


def test_every_path_says_what_it_is_for() -> None:
    for command in cli.COMMANDS:
        kind = load(command.args)
        hints = get_type_hints(kind, include_extras=True)
        for field, argument in zip(fields(kind), arguments_of(command), strict=True):
            assert argument.role is not None or "Path" not in str(hints[field.name]), argument


@pytest.fixture
def never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in cli.COMMANDS:
        module, name = command.run.split(":")
        served = importlib.import_module(module)
        monkeypatch.setattr(served, name, lambda _: pytest.fail("it began to work"))


def words_of(command: Command, source: Path) -> list[str]:
    """The least that the command takes, its first inputs being `source`."""
    words = command.name.split()
    for argument in arguments_of(command):
        if argument.option == "TASK":
            words.append("reverse")
        elif argument.is_required or "ENV_ID" in argument.option:
            if not argument.is_positional:
                words += [argument.option, str(source.parent / "required")]
                continue
            words.append(str(source) if argument.role is paths.Role.SOURCE else "CartPole-v1")
    return words


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.main(words)
    out, error = capsys.readouterr()
    assert (code, out) == (2, ""), error
    assert re.fullmatch("fastppo: error: [^\n]+\n", error), error
    return error


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(
    ("command", "option", "is_folder"), WRITING, ids=lambda x: getattr(x, "name", None)
)
def test_what_cannot_be_written_is_told_before_any_work(
    command: Command,
    option: str,
    is_folder: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "to-itself").symlink_to(tmp_path / "to-itself")
    words = words_of(command, tmp_path / "in.json")
    places = [tmp_path / "file" / "x", Path("/proc/x"), tmp_path / ("x" * 300)]
    places += [tmp_path / "file"] if is_folder else [tmp_path, tmp_path / "none" / "x"]
    places += [tmp_path / "to-itself" / "x"]
    before = sorted(os.listdir(tmp_path))

    for place in places:
        assert option in refused([*words, option, str(place)], capsys)

    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(
    ("command", "option", "is_folder"), WRITING, ids=lambda x: getattr(x, "name", None)
)
def test_an_output_is_no_input_however_it_is_spelled(
    command: Command,
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
    reading = [one for one in arguments_of(command) if one.role is paths.Role.SOURCE]
    if not reading or is_folder:
        pytest.skip("it reads no file that the user names")
    words = words_of(command, source)
    if str(source) not in words:
        words += [reading[0].option, str(source)]

    for spelled in ("in.json", "./in.json", "folder/in.json", "hard.json", "soft.json"):
        told = refused([*words, option, spelled], capsys)
        assert f"{option}: {Path(spelled)} is an input" in told
    assert source.read_text() == "{}"


PAIRS = [
    (command, one, other)
    for command, one, _ in WRITING
    for also, other, _ in WRITING
    if command is also and one < other
]


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(("command", "one", "other"), PAIRS, ids=named)
def test_two_outputs_never_share_a_path(
    command: Command,
    one: str,
    other: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(command, tmp_path / "in.json")

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
