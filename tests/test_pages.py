"""Every command of every page is one that the command line takes; the pages make a site."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastppo.cli import COMMANDS
from fastppo.shell import Command

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
HISTORY = {"results.md", "performance.md"}
"""Pages that say which command gave a figure, once: options may be called otherwise today."""
CALL = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?fastppo (.*?)\s*(?:#.*)?$")
INLINE = re.compile(r"`(?:\.venv/bin/)?fastppo ([a-z][^`]*)`")
STANDS = ("...", "RUN_DIR", "ENV_ID", "FOLDER", "NAME", "LIST", "DIR", "|", "<", "$(", "${{")
"""In a command that stands for many."""


def commands(page: Path) -> Iterator[str]:
    """Those in blocks of code, and in a sentence."""
    fenced = False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and (match := CALL.match(line)):
            yield match[1].rstrip("\\")
        else:
            yield from INLINE.findall(line)


def parse(words: list[str]) -> None:
    by_name = {tuple(command.name.split()): command for command in COMMANDS}
    command: Command | None = None
    for count in (3, 2, 1):
        command = command or by_name.get(tuple(words[:count]))
    if command is None:
        raise LookupError(words)
    rest = words[len(command.name.split()) :]
    if not rest:
        return  # a command is named, and not called
    try:
        command.parse(rest)
    except SystemExit as left:  # --help
        if left.code:
            raise


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in HISTORY], ids=lambda p: p.name)
def test_every_command_of_a_page_is_one(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.toml").write_text('env_id = "CartPole-v1"\n')
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "config.json").write_text('{"env_id": "CartPole-v1"}')
    wrong = []
    for text in commands(page):
        if any(one in text for one in STANDS) or text.split()[0] in ("COMMAND", "GROUP"):
            continue
        try:
            parse(shlex.split(text.partition(";")[0]))
        except Exception as error:  # whatever it is, the page is wrong
            wrong.append(f"fastppo {text}: {type(error).__name__}: {error}")
    capsys.readouterr()

    assert wrong == []


def test_there_are_commands_to_try() -> None:
    found = {page.name: len(list(commands(page))) for page in PAGES}

    assert found["README.md"] > 15
    assert found["first-run.md"] > 7
    assert "train HalfCheetah-v4 --help" in commands(ROOT / "docs" / "training.md")


@pytest.mark.slow
def test_the_first_run_runs_as_it_is_written(tmp_path: Path) -> None:
    """Every command of docs/first-run.md, in order, in an empty folder."""
    program = f"{shlex.quote(sys.executable)} -m fastppo "
    done = []
    for text in commands(ROOT / "docs" / "first-run.md"):
        ran = subprocess.run(
            program + text, shell=True, cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == 0, f"{text}: {ran.stderr}"
        done.append(text)

    assert len(done) > 7
    for name in ("first.html", "first.gif", "seeds.md", "runs/seeds/seed-3/metrics.jsonl"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_pages_make_a_site_without_a_dead_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    for name in ("mkdocs.yml", "docs"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}

    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, env=quiet)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build" / "site" / "first-run" / "index.html").is_file()
    (tmp_path / "docs" / "index.md").write_text("[gone](gone.md)\n")
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, env=quiet)
    assert done.returncode != 0
