"""Runs that are killed, stopped by signals, or out of disk at any moment, and go on afterwards."""

import ctypes
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
UPDATES = 40
KILLS, SIGNALS = 100, 60
KIBIBYTES = [*range(4, 64, 4), *range(64, 384, 16)]
"""Sizes of a disk, from one that holds nothing to one that holds the whole run."""


def train_args(tiny: tuple[str, ...]) -> list[str]:
    size = ["--total-timesteps", str(64 * UPDATES), "--checkpoint-interval", "1"]
    return ["train", *tiny, *size, "--run-dir", "run"]


def is_whole(run: Path) -> bool:
    """Every update is in metrics.jsonl once, in order, and the last checkpoint is there."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["update"] for row in rows] == list(range(1, UPDATES + 1)) and (
        run / "checkpoints" / f"{UPDATES:08d}.pt"
    ).is_file()


def go_on(fork: Callable[..., Any], tiny: tuple[str, ...], folder: Path) -> Any:
    """What a user does next: resume if there is a run, begin if there is none."""
    resumable = (folder / "run" / "config.json").exists()
    args = ["train", "--resume", "run", "--quiet"] if resumable else train_args(tiny)
    return fork(args, folder).wait()


@pytest.fixture(scope="module")
def seconds(fork: Callable[..., Any], tiny: tuple[str, ...], tmp_path_factory: Any) -> float:
    """What a whole run takes here, so that the moments fall into it."""
    folder = tmp_path_factory.mktemp("timed")
    start = time.monotonic()
    assert fork(train_args(tiny), folder).wait().code == 0
    assert is_whole(folder / "run")
    return time.monotonic() - start


@pytest.mark.timeout(1800)
def test_killed_at_any_moment(
    fork: Callable[..., Any], tiny: tuple[str, ...], seconds: float, tmp_path: Path, tally: Any
) -> None:
    group = "kill -9 at a random moment, then resume"
    draw = random.Random(1)
    for i in range(KILLS):
        folder = tmp_path / str(i)
        folder.mkdir()
        at = draw.uniform(0.0, seconds)
        fork(train_args(tiny), folder).signal_after(at, signal.SIGKILL)
        done = go_on(fork, tiny, folder)
        right = done.code == 0 and done.is_clean and is_whole(folder / "run")
        tally.add(group, f"{at:.3f} s: {done}", right=right)
        shutil.rmtree(folder)
    tally.check(group)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_at_any_moment(
    fork: Callable[..., Any],
    tiny: tuple[str, ...],
    seconds: float,
    tmp_path: Path,
    tally: Any,
    number: signal.Signals,
) -> None:
    group = f"{number.name} at a random moment, then resume"
    draw = random.Random(int(number))
    for i in range(SIGNALS // 3):
        folder = tmp_path / str(i)
        folder.mkdir()
        at = draw.uniform(0.1, seconds)
        ended = fork(train_args(tiny), folder).signal_after(at, number)
        known = ended.code in (0, 128 + number) and "Traceback" not in ended.err
        done = go_on(fork, tiny, folder)
        right = known and done.code == 0 and done.is_clean and is_whole(folder / "run")
        tally.add(group, f"{at:.3f} s: {ended}, {done}", right=right)
        shutil.rmtree(folder)
    tally.check(group)


def on_a_small_disk(disk: Path, size: int, tries: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `tries` finds in a process of its own, with a tmpfs of `size` KiB at `disk`."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk.mkdir()
    found = disk.with_name(f"{disk.name}.json")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mount(disk, f"size={size}k")
            found.write_text(json.dumps(tries()))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    facts: dict[str, Any] = json.loads(found.read_text())
    return facts


@pytest.mark.timeout(1800)
def test_a_disk_that_fills_at_any_write(
    fork: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path, tally: Any
) -> None:
    """Later the disk has space, and the run goes on."""
    group = "disk full at any write of a run, then resume"
    for size in KIBIBYTES:
        disk = tmp_path / f"disk-{size}"

        def tries(disk: Path = disk) -> dict[str, Any]:
            ended = fork(train_args(tiny), disk).wait()
            mount(disk, "size=64m,remount")
            done = go_on(fork, tiny, disk)
            known = ended.code == 0 or (ended.code == 3 and ended.err.count("\n") == 1)
            right = known and ended.is_clean and done.code == 0 and done.is_clean
            return {"told": f"{ended}, {done}", "right": right and is_whole(disk / "run")}

        facts = on_a_small_disk(disk, size, tries)
        tally.add(group, f"{size} KiB: {facts['told']}", right=facts["right"])
    tally.check(group)


@pytest.mark.timeout(1800)
def test_a_report_onto_a_disk_that_fills(
    fork: Callable[..., Any], result_file: Path, tmp_path: Path, tally: Any
) -> None:
    """Each file is whole, or what it was before."""
    group = "disk full at any write of a report"
    options = ("--md", "r.md", "--junit", "r.xml", "--html", "r.html")
    whole = tmp_path / "whole"
    whole.mkdir()
    assert fork(["report", str(result_file), *options], whole).wait().code == 0
    for size in range(0, 40 + (whole / "r.html").stat().st_size // 1024, 2):
        disk = tmp_path / f"disk-{size}"

        def tries(disk: Path = disk) -> dict[str, Any]:
            for name in options[1::2]:
                (disk / name).write_text("x")
            ended = fork(["report", str(result_file), *options], disk).wait()
            kept = all(
                (disk / name).read_bytes() in (b"x", (whole / name).read_bytes())
                for name in options[1::2]
            )
            known = ended.code == 0 or (ended.code == 3 and ended.err.count("\n") == 1)
            return {"told": str(ended), "right": known and ended.is_clean and kept}

        # three files of a block each are there already
        facts = on_a_small_disk(disk, size + 12, tries)
        tally.add(group, f"{size} KiB: {facts['told']}", right=facts["right"])
    tally.check(group)


def mount(where: Path, options: str) -> None:
    """A tmpfs that only this process and its children see."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = 0
    if "remount" in options:
        flags, options = 32, options.replace(",remount", "")
    elif libc.unshare(0x00020000) != 0:  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    else:
        libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None)  # MS_PRIVATE | MS_REC
    if libc.mount(b"tmpfs", str(where).encode(), b"tmpfs", flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {options}")
