"""fastppo's own benchmarks: in processes that have the kernels and trainer of one of the trees."""

import math
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
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
TURNS = 16
"""Of both sides within a pair."""
EVERY = {"HalfCheetah-v4": 2, "Pong-v5": 3}
"""Every how many turns a task is measured that takes long."""
TASK = "CartPole-v1"
"""Of the short run that start, memory and imports are seen in."""
OF_START = ("start", "memory")
"""Kinds of benchmarks that a process of their own measures."""
TOLERANCE, WIDER = 0.05, 0.10
SHORT_S = 1e-3
"""Of a call of a kernel: how fast a process runs shorter ones varies from launch to launch."""


def environment(side: GateSide, seed: int) -> dict[str, str]:
    """The variables of a process of a side: the same on both, but for where kernels are kept."""
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(side.cache / "numba"),
        "TRITON_CACHE_DIR": str(side.cache / "triton"),
        "FASTPPO_GATE_PADDING": "x" * random.Random(seed).randrange(PADDING),
        "PYTHONHASHSEED": "0",
    }
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # no thread of one side spins in the other's turn
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

    def tolerance(self, name: str, cost: float) -> float:
        """The usual one: rates and starts vary more, and so do calls that are mostly Python's."""
        short = name.startswith("kernel/") and cost < SHORT_S
        return WIDER if short or name.startswith(("train/", "start/")) else TOLERANCE

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
        """Seconds or bytes: of the base the median over turns, of the head that of the ratios.

        The processes of both sides live together and take turns at every benchmark, within
        milliseconds and on the same core: the cores of a shared machine differ by what runs next to
        them, up to twice, and that changes within seconds (docs/performance.md).
        """
        names = list(names)
        within = [name for name in names if not name.startswith(OF_START)]
        costs: Costs = {side.name: {} for side in order}
        failures: Failures = {}
        if within:
            with launched(order, seed) as workers:
                for name, answer in _ask_all(workers, {"run": within}):
                    missing = answer["missing"]
                    failures |= {(what, name): reason for what, reason in missing.items()}
                taken = _taken(workers, within, turns) if not failures else {}
            for name, (base, head) in taken.items():
                middle = median(base)
                ratios = [math.log(h / b) for b, h in zip(base, head, strict=True)]
                # whoever comes second finds the caches and threads of the first: by either order
                ratio = (median(ratios[::2]) + median(ratios[1::2])) / 2
                costs["base"][name], costs["head"][name] = middle, middle * math.exp(ratio)
        if any(name.startswith(OF_START) for name in names):
            # both at once: each is mostly one thread, and what slows one slows the other
            with launched(order, seed) as workers:
                for name, answer in _ask_all(workers, {"start": TASK}):
                    costs[name] |= answer["costs"]
        return costs, failures

    def learned(self, seeds: Sequence[int]) -> list[Series]:
        """What both sides learn, by seed; their processes serve all of them."""
        with launched(self._pair, 0) as workers:
            return learning.learned(
                lambda side, request: workers[side].ask({"learn": request}), seeds, print_err
            )

    def counts(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """By side, of what is named: what one update does, by task, and what a start imports."""
        tasks = sorted(
            {name.partition("/")[2] for name in names if not name.startswith("modules/")}
        )
        found: list[Mapping[str, Any]] = []
        for side in self._pair:
            counted = ask(side, {"count": tasks}) if tasks else {}
            started = ask(side, {"start": TASK}) if f"modules/{TASK}" in names else {}
            found.append(counted | started)
        return found


def _taken(
    workers: Mapping[str, RemoteWorker], names: Sequence[str], turns: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Costs of base and head by benchmark, turn by turn."""
    taken: dict[str, tuple[list[float], list[float]]] = {}
    groups = dict.fromkeys(
        name if name.startswith("kernel/") else name.partition("/")[2] for name in names
    )
    for turn in range(turns):
        for group in groups:
            own_turn, left_out = divmod(turn, EVERY.get(group, 1))
            if left_out:
                continue
            for name in list(workers)[:: 1 if own_turn % 2 == 0 else -1]:
                answer = workers[name].ask({"measure": group, "turn": own_turn})
                for what, cost in answer["costs"].items():
                    taken.setdefault(what, ([], []))[name == "head"].append(cost)
    return taken


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


@contextmanager
def launched(sides: Sequence[GateSide], seed: int) -> Iterator[dict[str, RemoteWorker]]:
    """A fresh process of each side, by its name, for the block."""
    with ExitStack() as stack:
        yield {side.name: stack.enter_context(launch(side, seed)) for side in sides}


def _ask_all(
    workers: Mapping[str, RemoteWorker], request: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers of all of them, which work at the same time."""
    for worker in workers.values():
        worker.send(request)
    for name, worker in workers.items():
        yield name, worker.receive()


def ask(side: GateSide, request: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The answer of a fresh process.

    Raises:
        MachineError: it died; the message has its last line.
    """
    with launch(side, seed) as worker:
        return worker.ask(request)
