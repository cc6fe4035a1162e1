"""Every file that a command reads, damaged in many ways: refused in one line, or read as it was."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
TRIES = 150
"""Of each kind of damage and file."""


def campaign(
    tally: Any,
    what: str,
    path: Path,
    mutants: Iterator[tuple[str, bytes]],
    judge: Callable[[bytes, bytes], tuple[Any, bool]],
) -> None:
    """Damages a file again and again, and has it read.

    Args:
        mutants: kinds of damage, and what the file holds then.
        judge: reads the file as it lies there, from what it held and holds; says what happened, and
            whether that is right.
    """
    whole = path.read_bytes()
    groups = set()
    for kind, mutant in mutants:
        path.write_bytes(mutant)
        outcome, right = judge(whole, mutant)
        groups.add(f"{what}: {kind}")
        tally.add(f"{what}: {kind}", f"{mutant[:80]!r}...: {outcome}", right=right)
    path.write_bytes(whole)
    for group in groups:
        tally.check(group)


def parsed(data: bytes) -> Any:
    """What JSON holds; the bytes themselves where they are none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


def is_refused(outcome: Any) -> bool:
    """By one line that begins as ours do."""
    lines = outcome.err.strip().splitlines()
    return (
        outcome.code in (2, 3)
        and outcome.is_clean
        and len(lines) == 1
        and lines[0].startswith("fastppo: error: ")
    )


@pytest.mark.timeout(1800)
def test_checkpoints(
    fork: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    tally: Any,
    mutants: Callable[..., Any],
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    path = max((tmp_path / "run" / "checkpoints").glob("*.pt"))
    args = ["eval", "run", "--episodes", "1", "--json"]
    before = fork(args, tmp_path).wait()

    def judge(whole: bytes, mutant: bytes) -> tuple[Any, bool]:
        after = fork(args, tmp_path).wait()
        # a bit of the container that says nothing, such as a date, may differ
        return after, is_refused(after) or (after.code == 0 and after.out == before.out)

    campaign(tally, "checkpoint", path, mutants(path.read_bytes(), TRIES), judge)


@pytest.mark.timeout(1800)
def test_config(
    fork: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    tally: Any,
    mutants: Callable[..., Any],
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")

    def judge(whole: bytes, mutant: bytes) -> tuple[Any, bool]:
        after = fork(["train", "--resume", "run"], tmp_path).wait()
        now = parsed(mutant)
        same = isinstance(now, dict) and now.get("config") == parsed(whole)["config"]
        return after, is_refused(after) or (same and after.code == 0 and after.is_clean)

    path = tmp_path / "run" / "config.json"
    campaign(tally, "config.json", path, mutants(path.read_bytes(), TRIES, "json"), judge)


@pytest.mark.timeout(1800)
def test_metrics(
    fork: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
    tally: Any,
    mutants: Callable[..., Any],
) -> None:
    """A damaged line costs that line; the others are still somewhere in the run directory."""
    shutil.copytree(finished_run, tmp_path / "whole")
    last = max((tmp_path / "whole" / "checkpoints").glob("*.pt"))
    last.unlink()  # so that there is something to go on with

    def judge(whole: bytes, mutant: bytes) -> tuple[Any, bool]:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        after = fork(["train", "--resume", "run", "--quiet"], tmp_path).wait()
        kept = b"\n".join(path.read_bytes() for path in (tmp_path / "run").glob("metrics*"))
        lines = [line for line in mutant.splitlines() if line in whole.splitlines()]
        # updates after the checkpoint are done again
        wanted = [line for line in lines if json.loads(line)["update"] <= 4]
        is_kept = all(line in kept.splitlines() for line in wanted)
        return after, after.code == 0 and after.is_clean and is_kept

    path = tmp_path / "whole" / "metrics.jsonl"
    campaign(tally, "metrics.jsonl", path, mutants(path.read_bytes(), TRIES, "lines"), judge)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["report", "compare"])
def test_results(
    fork: Callable[..., Any],
    result_file: Path,
    tmp_path: Path,
    tally: Any,
    mutants: Callable[..., Any],
    command: str,
) -> None:
    shutil.copy(result_file, tmp_path / "a.json")
    shutil.copy(result_file, tmp_path / "b.json")
    args = [command, "a.json", *(["b.json"] if command == "compare" else [])]
    before = fork(args, tmp_path).wait()
    assert before.code == 0

    def judge(whole: bytes, mutant: bytes) -> tuple[Any, bool]:
        after = fork(args, tmp_path).wait()
        now = parsed(mutant)
        # without its digest a file is one from before there were digests
        free = isinstance(now, dict) and "digest" not in now
        same = now == parsed(whole) and after.out == before.out
        return after, is_refused(after) or ((free or same) and after.is_clean)

    path = tmp_path / "a.json"
    campaign(
        tally, f"result file, {command}", path, mutants(path.read_bytes(), TRIES, "json"), judge
    )
