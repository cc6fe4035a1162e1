"""Checkpoints: written aside, synced and renamed, so a crash leaves the previous one whole.

The digest in each is that of its content: a bit that flipped on the way is not trained on.
"""

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from fastppo import files
from fastppo.errors import Diverged, MachineError, UserError, why
from fastppo.text import called
from fastppo.token_config import command_of

FORMAT = "fastppo.checkpoint/1"
FIELDS: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "update": (int,),
    "global_step": (int,),
    "wall_time": (float,),
    "policy": (dict,),
    "optimizer": (dict,),
    "obs_normalizer": (dict, NoneType),
    "reward_scaler": (dict, NoneType),
}
_REMEDY = "delete it to fall back on the one before, or name another run"
BEST = "best"
"""Name of the checkpoint that returned the most in the evaluations of its run."""
_OURS = re.compile(r"\d{8,}\.pt")


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) to `path` atomically.

    Raises:
        Diverged: a number in it is not finite; a run that went on from there would be lost.
        MachineError: the disk is full or cannot be written; what was there before is untouched.
    """
    wrong = _not_finite(state)
    if wrong is not None:
        raise Diverged(
            f"checkpoint: {wrong}, so {path} is not written; go on from the one before with "
            f"`{_resuming(path, state)}`"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            torch.save({"format": FORMAT, "digest": digest(state), **state}, file)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        raise MachineError(
            f"checkpoint: cannot write {path} ({_reason(error)}); free space or make the folder "
            f"writable, then go on with `{_resuming(path, state)}`"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; only tensors and plain values are unpickled.

    A checkpoint from before there were digests is read without one.

    Raises:
        UserError: no such file, one that may not be read, a truncated or changed one, one that is
            no fastppo checkpoint, or one whose fields are off.
    """
    try:
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint: {path} does not exist") from None
    except PermissionError as error:
        remedy = "make it readable, or name another run"
        raise UserError(f"checkpoint: {path} cannot be read ({why(error)}); {remedy}") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError,
            ValueError, KeyError, AttributeError, TypeError, IndexError):  # fmt: skip
        message = f"checkpoint: {path} is truncated or no checkpoint; {_REMEDY}"
        raise UserError(message) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(f"checkpoint: {path} holds {found!r} and not {FORMAT!r}; {_REMEDY}")
    wrong = _problem(state)
    if wrong is not None:
        raise UserError(f"checkpoint: {path}: {wrong}; {_REMEDY}")
    return state


def digest(state: dict[str, Any]) -> str:
    """SHA-256 of a state's content: names, values, and the bytes, shapes and dtypes of tensors."""
    content = hashlib.sha256()
    for name, value in _leaves(state):
        content.update(f"{name} ".encode())
        if isinstance(value, torch.Tensor):
            content.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            content.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            content.update(f"{value!r} ".encode())
    return content.hexdigest()


def check_run(state: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuses the checkpoint of another run.

    Args:
        config: that of the run's config.json.

    Raises:
        UserError: it is one.
    """
    if state["config"] != config:
        raise UserError("checkpoint: belongs to another run than config.json; name one of this run")


@contextmanager
def fitting() -> Iterator[None]:
    """For the block that puts a checkpoint's state into what the config describes.

    Raises:
        UserError: it does not fit.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"checkpoint: does not fit the run's config ({_reason(error)}); {_REMEDY}"
        ) from None


def newest(folder: Path) -> Path:
    """The checkpoint of the latest update in a run's folder of checkpoints.

    Raises:
        UserError: there is none, or the folder may not be read.
    """
    found = find(folder)
    if not found:
        remedy = f"begin with `{called()} train --resume {folder.parent}`"
        raise UserError(f"checkpoint: none in {folder} yet; {remedy}")
    return found[-1]


def best(folder: Path) -> Path:
    """The checkpoint whose evaluation returned the most.

    Raises:
        UserError: the run was never evaluated while it trained.
    """
    path = folder / f"{BEST}.pt"
    if not path.is_file():
        raise UserError(f"checkpoint: {path} is not there; train with --eval-interval to have one")
    return path


def prune(folder: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints; files of other names are not ours."""
    for old in find(folder)[:-keep]:
        old.unlink(missing_ok=True)


def find(folder: Path) -> list[Path]:
    """The files that `RunDir.save` has named, by their update.

    Raises:
        UserError: the folder may not be read.
    """
    try:
        # glob would take a folder that may not be read for an empty one
        found = [folder / name for name in os.listdir(folder) if _OURS.fullmatch(name)]
    except FileNotFoundError:
        found = []
    except OSError as error:
        message = f"checkpoint: {folder} cannot be read ({why(error)}); make it readable"
        raise UserError(message) from None
    return sorted(found, key=lambda path: int(path.stem))


def _resuming(path: Path, state: dict[str, Any]) -> str:
    env_id = state.get("config", {}).get("env_id", "")
    return f"{called()} {command_of(env_id)} --resume {path.parent.parent}"


def _problem(state: dict[str, Any]) -> str | None:
    """What is wrong with the fields of a checkpoint, in one line."""
    for name, types in FIELDS.items():
        if name not in state:
            return f"{name} is missing"
        value = state[name]
        if not isinstance(value, types) or isinstance(value, bool):
            return f"{name} is {type(value).__name__} and not {types[0].__name__}"
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            return f"{name} is {value} and must be 0 or above"
    wrong = _not_finite(state)
    if wrong is not None:
        return wrong
    content = {name: value for name, value in state.items() if name not in ("format", "digest")}
    if "digest" in state and state["digest"] != digest(content):
        return "its content was changed since it was written (digest)"
    return None


def _not_finite(state: dict[str, Any]) -> str | None:
    for name, leaf in _leaves(state):
        if isinstance(leaf, torch.Tensor) and not leaf.isfinite().all():
            return f"{name} holds numbers that are not finite"
    return None


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{name}[{i}]")
    else:
        yield name, value


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return why(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:160] or type(error).__name__
