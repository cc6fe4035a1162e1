"""One update of a trainer, timed from outside, with or without torch.profiler around it."""

import gzip
import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from fastppo import files
from fastppo.bench.profile.trace import KERNEL, PHASE, Event
from fastppo.kernels import api
from fastppo.timing import PHASES, PhaseTimer
from fastppo.trainer import Trainer

KERNELS = tuple(
    name
    for name, function in inspect.getmembers(api, inspect.isfunction)
    if function.__module__.endswith(".op")
)
"""The operations among what `kernels.api` offers."""
CHATTER = (b"SyncActivityProfilerHandler.cpp", b"CPUAllocator.cpp")
"""Log lines of the profiler that no setting mutes and no user can act on."""


@dataclass(frozen=True, slots=True)
class Update:
    """One update, timed from outside."""

    env_steps: int
    wall_s: float
    phases: dict[str, float]
    """Seconds, `other` among them."""

    @property
    def env_steps_per_s(self) -> float:
        return self.env_steps / self.wall_s


class TracedTimer(PhaseTimer):
    """Names the phases in the trace, too."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the time of the block, and annotates it."""
        with record_function(f"{PHASE}{name}"), super().phase(name):
            yield


@contextmanager
def named_kernels() -> Iterator[None]:
    """Names the calls of `kernels.api` in the trace, where numba's would only be gaps.

    In brackets the elements of the tensors it was called with.
    """
    originals = {name: getattr(api, name) for name in KERNELS}

    def named(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            # gather_rows takes a list of tensors
            flat = [x for arg in args for x in (arg if isinstance(arg, list) else [arg])]
            elements = sum(x.numel() for x in flat if isinstance(x, torch.Tensor))
            with record_function(f"{KERNEL}{name} [{elements}]"):
                return originals[name](*args, **kwargs)

        return call

    try:
        for name in originals:
            setattr(api, name, named(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(api, name, original)


@contextmanager
def without_chatter() -> Iterator[None]:
    """Drops CHATTER from what native code writes to stderr, and passes on the rest."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            for line in caught:
                if not any(mark in line for mark in CHATTER):
                    os.write(2, line)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_update(trainer: Trainer) -> Update:
    """One update by the wall clock, with the device idle before and after."""
    _wait(trainer.device)
    start = time.perf_counter()
    metrics = trainer.run_update()
    _wait(trainer.device)
    wall = time.perf_counter() - start
    phases = {name: metrics[f"time/{name}"] for name in (*PHASES, "other")}
    return Update(metrics["env_steps"], wall, phases)


def traced_update(trainer: Trainer, path: Path, *, memory: bool = False) -> Update:
    """One update under the profiler; its Chrome trace goes to `path`.

    Starting, stopping and exporting are not timed.
    """
    activities = [ProfilerActivity.CPU]
    if trainer.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    timer = trainer.timer
    trainer.timer = TracedTimer(trainer.device)
    try:
        with without_chatter(), named_kernels():
            with profile(
                activities=activities, record_shapes=True, profile_memory=memory
            ) as profiler:
                update = timed_update(trainer)
            profiler.export_chrome_trace(str(path))
    finally:
        trainer.timer = timer
    return update


def read_events(path: Path) -> list[Event]:
    """The events of an exported trace."""
    events: list[Event] = json.loads(path.read_text())["traceEvents"]
    return events


def compress(source: Path, target: Path) -> None:
    """Writes a gzip'ed copy, whole or not at all."""
    with files.replacing(target) as file:
        file.write(gzip.compress(source.read_bytes(), compresslevel=6))
