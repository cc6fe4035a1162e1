"""What a gate measures within one launch: kernels, the phases and the rate of training."""

import gc
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fastppo.bench.gate.counts import counted

TASKS: dict[str, tuple[str, dict[str, int]]] = {
    "CartPole-v1": ("8x128", {}),
    "HalfCheetah-v4": ("64x16", {"num_minibatches": 4}),
    "Pong-v5": ("8x8", {"num_minibatches": 2, "update_epochs": 1}),
}
"""Size, and what makes an update short."""
PHASES = {"collect": ("env", "policy", "copy"), "update": ("update",)}
TENSORS = (torch.Tensor, torch.nn.Parameter)
COUNTED = ("operators", "bytes", "syncs")
"""Kinds that are exact."""
Adopt = Callable[[str, Path], ModuleType]


class TurnTaker:
    """What one process measures, turn by turn: the two sides of a pair take turns within seconds.

    Args:
        bench: the gate's own `bench` folder, next to which are its kernels' cases.
        adopt: loads a module of the gate in place of the tree's.
    """

    def __init__(self, bench: Path, adopt: Adopt) -> None:
        self._bench, self._adopt = bench, adopt
        self._measures: dict[str, Callable[[], float]] = {}
        self._trainers: dict[str, Any] = {}
        self._wanted: set[str] = set()

    def serve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers one request.

        Args:
            request: `names`: which benchmarks are there; `run`: get these ready; `measure`: a
                kernel or task, once, on the core of this `turn`; `count`: tasks, an update of each.

        Returns:
            names and missing; missing; costs in seconds; or counts.
        """
        if "count" in request:
            return {"counts": {task: exact(task) for task in request["count"]}}
        if "measure" in request:
            cores = sorted(os.sched_getaffinity(0))
            # this thread alone: EnvPool's go where they like
            os.sched_setaffinity(0, {cores[request["turn"] // 2 % len(cores)]})
            try:
                return {"costs": self._measure(request["measure"])}
            finally:
                os.sched_setaffinity(0, cores)
        kernels, missing = _kernels(self._bench, self._adopt)
        names = [*kernels, *(name for task in TASKS for name in _names_of(task))]
        if "names" in request:
            names += [f"{kind}/{task}" for kind in COUNTED for task in TASKS]
            return {"names": names, "missing": missing}
        self._wanted = set(request["run"])
        self._measures = _clocks({n: build for n, build in kernels.items() if n in self._wanted})
        for task in TASKS:
            if self._wanted & set(_names_of(task)):
                self._trainers[task] = trainer = _trainer(task)
                for _ in range(2):
                    trainer.run_update()
        lacking = self._wanted - set(names)
        return {"missing": {name: missing.get(_of(name), "it is not there") for name in lacking}}

    def _measure(self, group: str) -> dict[str, float]:
        """Seconds of a call of a kernel; or of an env step of one update of a task, by phase."""
        if group in self._measures:
            return {group: self._measures[group]()}
        row = self._trainers[group].run_update()
        costs = {f"train/{group}": 1.0 / row["env_steps_per_s"]}
        for phase, parts in PHASES.items():
            spent = sum(row[f"time/{part}"] for part in parts)
            costs[f"{phase}/{group}"] = spent / row["env_steps"]
        return {name: cost for name, cost in costs.items() if name in self._wanted}


def _of(name: str) -> str:
    """kernel/gae/gae[T=128 N=8] is of kernel/gae."""
    return "/".join(name.split("/")[:2])


def _kernels(bench: Path, adopt: Adopt) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The ends of every operation's grid, and why an operation has none in this tree."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = bench.parent / "kernels"
    adopt("fastppo.kernels.tools.case", folder / "tools" / "case.py")
    found: dict[str, Callable[[], Any]] = {}
    missing = {}
    for path in sorted(folder.glob("*/cases.py")):
        operation = path.parent.name
        try:
            cases = adopt(f"fastppo.kernels.{operation}.cases", path)
        except ImportError as error:
            missing[f"kernel/{operation}"] = str(error)
            continue
        for case in cases.benchmarks(device, True):
            found[f"kernel/{operation}/{case.id}"] = partial(_ours, case, device)
    return found, missing


def _ours(case: Any, device: torch.device) -> Callable[[], Any]:
    work: Callable[[], Any] = case.build(device).ours
    return work


def _clocks(
    builds: Mapping[str, Callable[[], Callable[[], Any]]],
) -> dict[str, Callable[[], float]]:
    """A measure of each kernel: seconds of a call."""
    from fastppo.bench.kernels.clocks import ColdClock, cpu_clock, keep_freed_memory

    keep_freed_memory()
    clock = ColdClock(torch.device("cuda")) if torch.cuda.is_available() else cpu_clock
    return {name: clock(build()) for name, build in builds.items()}


def _names_of(task: str) -> list[str]:
    return [f"train/{task}", *(f"{phase}/{task}" for phase in PHASES)]


def _trainer(task: str, **settings: Any) -> Any:
    from fastppo.bench.recipes import config_for
    from fastppo.trainer import Trainer

    size, shorter = TASKS[task]
    return Trainer(replace(config_for(task, size), **shorter | settings))


def exact(task: str) -> dict[str, dict[str, int]]:
    """What the eager engine does in its second update: operators, bytes, waits for the device."""
    trainer = _trainer(task, engine="eager")
    try:
        trainer.run_update()
        found = counted(trainer.run_update)
    finally:
        trainer.close()
    held = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in _alive()}
    size = {"allocated in an update": found.allocated, "held by tensors": sum(held.values())}
    return {"operators": found.operators, "bytes": size, "syncs": found.syncs}


def _alive() -> Iterator[torch.Tensor]:
    """Every tensor of this process."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some objects warn when they are asked what they are
        yield from (one for one in gc.get_objects() if type(one) in TENSORS)
