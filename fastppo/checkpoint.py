"""Checkpoints: written aside, synced and renamed, so a crash leaves the previous one whole."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from fastppo.errors import MachineError, UserError

FORMAT = "fastppo.checkpoint/1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) to `path` atomically.

    Raises:
        MachineError: the disk is full or cannot be written; what was there before is untouched.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        part.unlink(missing_ok=True)
        raise MachineError(
            f"checkpoint: cannot write {path} ({_reason(error)}); free space or make the folder "
            f"writable, then go on with `fastppo train --resume {path.parent.parent}`"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; only tensors and plain values are unpickled.

    Raises:
        UserError: no such file, a truncated one, or one that is no fastppo checkpoint.
    """
    remedy = "delete it to fall back on the one before, or name another run"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint: {path} does not exist") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError,
            ValueError, KeyError, AttributeError):  # fmt: skip
        message = f"checkpoint: {path} is truncated or no checkpoint; {remedy}"
        raise UserError(message) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(f"checkpoint: {path} holds {found!r} and not {FORMAT!r}; {remedy}")
    return state


def newest(folder: Path) -> Path:
    """The checkpoint of the latest update in a run's folder of checkpoints.

    Raises:
        UserError: there is none.
    """
    found = sorted(folder.glob("*.pt"))
    if not found:
        raise UserError(f"checkpoint: none in {folder}; train from the start into a new run_dir")
    return found[-1]


def prune(folder: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints."""
    for old in sorted(folder.glob("*.pt"))[:-keep]:
        old.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0][:100]
