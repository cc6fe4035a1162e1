"""`examples/gate-demo`: any project's command, red on purpose and green after the fix."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fastppo import cli

DEMO = Path(__file__).parents[3] / "examples" / "gate-demo"
GATE = ("--command", "python3 bench.py", "--metric", "values_per_s", "--rounds", "12")


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own whose main is the demo; we stand in it."""
    folder = tmp_path / "demo"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "-qb", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "checkout", "-qb", "change")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_red_on_purpose_and_green_after_the_fix(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(demo, "apply", "slow.patch")
    git(demo, "commit", "-qam", "slow")

    assert cli.main(["gate", "main", *GATE, "--junit", str(tmp_path / "gate.xml")]) == 1

    (failure,) = ElementTree.parse(tmp_path / "gate.xml").findall(".//failure")
    assert "REGRESSION: command/values_per_s costs" in str(failure.get("message"))
    git(demo, "apply", "-R", "slow.patch")
    text = (demo / "smooth.py").read_text()
    (demo / "smooth.py").write_text(text.replace("is one sum away from", "follows from"))
    git(demo, "commit", "-qam", "fast again")

    assert cli.main(["gate", "main", *GATE, "--tolerance", "0.9"]) == 0
    assert not list(tmp_path.glob("fastppo-gate-*/"))


def test_the_same_files_pass_without_a_launch(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gate", "main", *GATE, "--command", "false"]) == 0
    assert "1 of the same code" in capsys.readouterr().out


def test_rates_are_shown_as_they_are_printed(demo: Path, tmp_path: Path) -> None:
    (demo / "bench.py").write_text('print(\'{"rate": 50}\\n{"rate": 40}\\nnoise\\n{"rate": 60}\')')
    target = tmp_path / "gate.json"

    words = ["--command", "python3 bench.py", "--metric", "rate", "--json", str(target)]
    git(demo, "commit", "-qam", "a rate")
    git(demo, "branch", "-f", "main")
    (demo / "bench.py").write_text("print('{\"rate\": 25}')")
    assert cli.main(["gate", "main", "--worktree", *words, "--rounds", "12"]) == 1

    record = json.loads(target.read_text())
    (entry,) = record["results"]
    assert re.fullmatch("[0-9a-f]{40}", record["base"]["sha"])
    assert record["head"]["sha"] == "the working tree"
    assert (entry["unit"], entry["better"]) == ("rate", "higher")
    assert entry["gate"]["base"][0] == 50
    assert entry["launches"][0]["samples"] == [25]
    assert entry["gate"]["change"]["value"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print(1)", "the command never printed a number 'x': it printed no JSON object at all"),
        ("print('{\"y\": 1}')", "the command never printed a number 'x': it printed y"),
        ("print('{\"x\": true}')", "never printed a number 'x': it printed x"),
        ("print('{\"x\": NaN}')", "never printed a number 'x': it printed x"),
        ("print('{\"x\": 0}')", "it printed 0, which is not above 0"),
        ("raise SystemExit('no data')", "exit code 1 (no data) on base"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
)
def test_a_command_that_measures_nothing_is_not_a_regression(
    program: str, message: str, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (demo / "bench.py").write_text(program)
    git(demo, "commit", "-qam", "broken")
    git(demo, "branch", "-f", "main")
    (demo / "new.txt").write_text("a change")

    code = cli.main(["gate", "main", "--worktree", "--command", "python3 bench.py",
                     "--metric", "x"])  # fmt: skip

    said = capsys.readouterr()
    assert code == 3
    assert message in " ".join((said.out + said.err).split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--command", "nonesuch --fast"), "nonesuch"),
        (("--command", "python3 bench.py", "--prepare", "false"), "--prepare: exit code 1"),
    ],
)
def test_what_cannot_run_is_one_sentence(
    words: tuple[str, ...], message: str, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (demo / "new.txt").write_text("a change")
    assert cli.main(["gate", "main", "--worktree", *words, "--metric", "values_per_s"]) == 3
    *_, last = capsys.readouterr().err.splitlines()
    assert message in last


def test_it_runs_in_the_folder_that_we_stand_in(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (demo / "part").mkdir()
    (demo / "part" / "bench.py").write_text("print('{\"x\": 3}')")
    git(demo, "add", ".")
    git(demo, "commit", "-qam", "part")
    git(demo, "branch", "-f", "main")
    (demo / "new.txt").write_text("a change")
    monkeypatch.chdir(demo / "part")

    words = ("--command", "python3 bench.py", "--metric", "x", "--better", "lower")
    assert cli.main(["gate", "main", "--worktree", *words]) == 0


def test_outside_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cli.main(["gate", "main", *GATE]) == 2
    assert "is in no git repository" in capsys.readouterr().err
