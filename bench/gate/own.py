"""fastppo's own benchmarks: in processes that have the kernels and trainer of one of the trees."""

import math
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastppo.bench.gate import caches, closure, learning
from fastppo.bench.gate.pairs import Series
from fastppo.bench.gate.revisions import GateSide
from fastppo.bench.gate.subject import Better, Costs, Failures
from fastppo.bench.static.remote import RemoteWorker
from fastppo.text import print_err

WORKER = Path(__file__).with_name("worker.py")
BENCH = Path(__file__).resolve().parent.parent
LAUNCH_S = 300.0
"""Longest wait for the answer of one launch."""
PADDING = 4096
"""Bytes: the environment is padded by up to so many, so that no build is lucky with its stack."""
TURNS = 24
"""Of both sides within a pair; the least of each counts. Many short ones: a shared machine changes
its speed within seconds, and both sides have to meet its best."""
TASK = "CartPole-v1"
"""Of the short run that start, memory and imports are seen in."""
OF_START = ("start", "memory")
"""Kinds of benchmarks that a process of their own measures."""
TOLERANCE, RATE_TOLERANCE = 0.05, 0.10


def environment(side: GateSide, seed: int) -> dict[str, str]:
    """The variables of a process of a side: the same on both, but for where kernels are kept."""
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(side.cache / "numba"),
        "TRITON_CACHE_DIR": str(side.cache / "triton"),
        "FASTPPO_GATE_PADDING": "x" * random.Random(seed).randrange(PADDING),
        "PYTHONHASHSEED": "0",
    }
    env.pop("WANDB_MODE", None)
    return env


class OwnBenchmarks:
    """Kernels, phases and rates of training, start and memory; operators and imports by count.

    Args:
        again: measures what is the same on both sides, too.
    """

    def __init__(self, pair: tuple[GateSide, GateSide], *, again: bool = False) -> None:
        self._pair = pair
        self._again = again
        self.missing: dict[str, str] = {}
        self.better: Better = "lower"

    def names(self) -> list[str]:
        """What there is in the head's tree."""
        described = ask(self._pair[1], {"names": True})
        self.missing = described["missing"]
        return [*described["names"], *(f"{kind}/{TASK}" for kind in (*OF_START, "modules"))]

    def differs(self, name: str) -> bool:
        """Whether a benchmark's code is another on either side."""
        entries = closure.entry_modules(name)
        base, head = (closure.digest(side.tree, entries) for side in self._pair)
        return self._again or base != head

    def tolerance(self, name: str) -> float:
        """The usual one: rates and starts vary more."""
        return RATE_TOLERANCE if name.startswith(("train/", "start/")) else TOLERANCE

    def warm(self, names: Sequence[str]) -> Failures:
        """Compiles the kernels of both sides, as far as no earlier gate did; what a side lacks."""
        print_err("starting both sides; kernels that are new are compiled ...")
        for side in self._pair:
            caches.fill(side)
        _, lacking = self.costs(self._pair, names, seed=0, turns=0)
        for side in self._pair:
            caches.keep(side)
        return lacking

    def costs(
        self, order: Sequence[GateSide], names: Iterable[str], seed: int, turns: int = TURNS
    ) -> tuple[Costs, Failures]:
        """Seconds or bytes, the least over turns.

        The processes of both sides live together and take turns, so that what comes and goes on the
        machine within seconds meets both.
        """
        names = list(names)
        within = [name for name in names if not name.startswith(OF_START)]
        costs: Costs = {side.name: {} for side in order}
        failures: Failures = {}
        if within:
            with ExitStack() as stack:
                workers = {side.name: stack.enter_context(launch(side, seed)) for side in order}
                for worker in workers.values():
                    worker.send({"run": within})
                for name, worker in workers.items():
                    missing = worker.receive()["missing"]
                    failures |= {(what, name): reason for what, reason in missing.items()}
                for turn in range(turns):
                    for name in list(workers)[:: 1 if turn % 2 == 0 else -1]:
                        for what, cost in workers[name].ask({"turn": turn})["costs"].items():
                            costs[name][what] = min(cost, costs[name].get(what, math.inf))
        if any(name.startswith(OF_START) for name in names):
            for side in order:
                costs[side.name] |= ask(side, {"start": TASK}, seed)["costs"]
        return costs, failures

    def learned(self, seeds: Sequence[int]) -> list[Series]:
        """What both sides learn, by seed; their processes serve all of them."""
        with ExitStack() as stack:
            workers = {s.name: stack.enter_context(launch(s, 0)) for s in self._pair}
            return learning.learned(
                lambda side, request: workers[side].ask({"learn": request}), seeds, print_err
            )

    def counts(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """By side, of what is named: what one update does, by task, and what a start imports."""
        tasks = sorted({name.partition("/")[2] for name in names if name[:8] != "modules/"})
        found: list[Mapping[str, Any]] = []
        for side in self._pair:
            counted = ask(side, {"count": tasks}) if tasks else {}
            started = ask(side, {"start": TASK}) if f"modules/{TASK}" in names else {}
            found.append(counted | started)
        return found


def launch(side: GateSide, seed: int) -> RemoteWorker:
    """A fresh process of a side.

    Raises:
        MachineError: it cannot be started.
    """
    env = environment(side, seed)
    env.pop("PYTHONPATH", None)
    command = [side.python, "-P", str(WORKER), str(side.tree), str(BENCH)]
    command.append(str(time.monotonic()))
    return RemoteWorker(side.name, command, env=env, timeout_s=LAUNCH_S)


def ask(side: GateSide, request: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The answer of a fresh process.

    Raises:
        MachineError: it died; the message has its last line.
    """
    with launch(side, seed) as worker:
        return worker.ask(request)
