"""`fastppo track sync`: uploads offline W&B runs, the parts of each run in their order."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fastppo import files
from fastppo.bench.track.args import SyncArgs
from fastppo.errors import MachineError, UserError
from fastppo.text import print_out
from fastppo.tracking import wandb_names
from fastppo.tracking.wandb_process import FOREIGN
from fastppo.tracking.wandb_run import MARKER


@dataclass(frozen=True)
class Part:
    """One offline run folder of ours: everything one W&B run knew by the end of it."""

    folder: Path
    run_id: str
    number: int

    @property
    def is_synced(self) -> bool:
        """W&B leaves a marker once it has uploaded a file."""
        return any(self.folder.glob("*.wandb.synced"))

    @property
    def is_being_written(self) -> bool:
        """Whether a training process still holds the run directory."""
        lock = self.folder.parent.parent / ".lock"
        try:
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass  # no lock: a pushed result
        return False


def find_parts(folders: Sequence[Path]) -> tuple[list[Part], int]:
    """Our offline runs under these folders, sorted by run and part, and how many are not ours."""
    parts: dict[Path, Part] = {}
    foreign: set[Path] = set()
    for folder in folders:
        for found in _offline_runs(folder):
            marker = _read_marker(found)
            if marker is None:
                foreign.add(found.resolve())
            else:
                parts[found.resolve()] = Part(found, str(marker["id"]), int(marker["part"]))
    ordered = sorted(parts.values(), key=lambda p: (p.run_id, p.number, p.folder.name))
    return ordered, len(foreign)


def _offline_runs(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UserError(
            f"dir: {folder} is not a folder; name a run directory, or one that holds runs"
        )
    if folder.name.startswith("offline-run-"):
        yield folder
    for pattern in ("offline-run-*", "wandb/offline-run-*", "*/wandb/offline-run-*"):
        yield from (path for path in folder.glob(pattern) if path.is_dir())


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        marker: dict[str, Any] = files.parse_json((folder / MARKER).read_bytes())
        return marker if isinstance(marker["part"], int) and marker["id"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run(args: SyncArgs) -> int:
    """Runs `fastppo track sync`; errors as `sync`."""
    if not args.timeout > 0:
        raise UserError(f"--timeout: {args.timeout} must be above 0")
    here = [folder for folder in (Path("runs"), Path()) if folder.is_dir()]
    sync(args.dirs or here, dry_run=args.dry_run, timeout_s=args.timeout)
    return 0


def sync(folders: Sequence[Path], *, dry_run: bool, timeout_s: float) -> None:
    """Uploads what is not uploaded yet, and prints for every part what was done.

    Raises:
        UserError: no API key, or a folder that is none.
        MachineError: a part could not be uploaded; the other runs were.
    """
    parts, foreign = find_parts(folders)
    if not dry_run and any(not part.is_synced for part in parts) and not wandb_names.has_key():
        raise UserError("sync: needs an API key; set WANDB_API_KEY or run `wandb login`")
    failed = 0
    for _, group in groupby(parts, key=lambda part: part.run_id):
        failed += not _sync_run(list(group), dry_run=dry_run, timeout_s=timeout_s)
    if not parts:
        print("nothing to upload: no offline runs of fastppo here")
    if foreign:
        print_out(f"{foreign} offline runs of other programs left alone; `wandb sync` sends those")
    if failed:
        raise MachineError(f"sync: {failed} runs could not be uploaded; try again later")


def _sync_run(parts: Sequence[Part], *, dry_run: bool, timeout_s: float) -> bool:
    """Uploads one run's parts; False as soon as one of them fails."""
    newest_synced = max((part.number for part in parts if part.is_synced), default=0)
    for part in parts:
        if part.is_synced:
            _tell("uploaded before", part)
        elif part.number < newest_synced:
            # it would replace the longer history that is there by its shorter one
            _tell(f"left out: part {newest_synced}, which holds its history, is uploaded", part)
        elif part.is_being_written:
            _tell("left out: still training", part)
        elif dry_run:
            _tell("would upload", part)
        else:
            reason = _upload(part, timeout_s)
            _tell("uploaded" if reason is None else f"failed: {reason}", part)
            if reason is not None:
                return False  # its later parts wait, so that the order holds
    return True


def _upload(part: Part, timeout_s: float) -> str | None:
    """Runs `wandb sync`; the reason if it did not upload."""
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    command = [sys.executable, "-m", "wandb", "sync", str(part.folder)]
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout_s, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not done after {timeout_s:.0f} s"
    if part.is_synced:  # W&B's exit code is 0 also where it uploaded nothing
        return None
    return _last_line((done.stderr + done.stdout).splitlines()) or f"exit code {done.returncode}"


def _last_line(lines: Iterable[str]) -> str | None:
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else None


def _tell(what: str, part: Part) -> None:
    print_out(f"{part.run_id} part {part.number}  {what}  {part.folder}")
