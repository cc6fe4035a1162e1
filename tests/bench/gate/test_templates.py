"""The templates for CI: every command of theirs is one that fastppo takes."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fastppo import cli

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "ci"
TEMPLATES = sorted(FOLDER.iterdir())
COMMAND = re.compile(r'(?:\.venv/bin/fastppo|"\$fastppo") ((?:gate|bench|static)[^\n|]*)')


def commands(path: Path) -> list[list[str]]:
    """Words of every call of fastppo; a line that goes on is one line."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    text = re.sub(r">-\n\s+(.*)\n\s+(--.*)", r"\1 \2", text)
    return [shlex.split(found.replace("|| code=$?", "")) for found in COMMAND.findall(text)]


def test_every_template_calls_the_gate() -> None:
    calls = {path.name: [words[:2] for words in commands(path)] for path in TEMPLATES}
    assert len(calls["gate.sh"]) == 2
    assert len(calls["github-gate.yml"]) == 9
    assert calls["github-gate-comment.yml"] == []


@pytest.mark.parametrize(
    "words", [words for path in TEMPLATES for words in commands(path)], ids=" ".join
)
def test_the_command_takes_these_arguments(words: list[str]) -> None:
    by_name = {tuple(command.name.split()): command for command in cli.COMMANDS}
    count = next(n for n in (3, 2, 1) if tuple(words[:n]) in by_name)
    assert by_name[tuple(words[:count])].parse(words[count:])


def test_the_comment_runs_no_code_of_the_pull_request() -> None:
    text = (FOLDER / "github-gate-comment.yml").read_text()
    assert "checkout" not in text
    assert "head_ref" not in text
    assert re.findall(r"\$\{\{ (.*?) \}\}", text) == [
        "github.token",
        "github.repository",
        "github.event.workflow_run.id",
        "github.event.workflow_run.head_sha",
    ]
    gate = (FOLDER / "github-gate.yml").read_text()
    assert "write" not in gate.partition("jobs:")[2]
    assert gate.count("persist-credentials: false") == gate.count("actions/checkout@")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", ["examples/ci/gate.sh", ".ci/run"])
def test_shellcheck_finds_nothing(script: str) -> None:
    done = subprocess.run(["shellcheck", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
def test_actionlint_finds_nothing() -> None:
    names = [str(path) for path in TEMPLATES if path.suffix == ".yml"]
    done = subprocess.run(["actionlint", *names], capture_output=True, text=True)
    assert done.stdout == ""
