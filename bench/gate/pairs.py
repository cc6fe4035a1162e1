"""Pairs of launches, AB BA AB ..., until every benchmark has a verdict or the rounds are over."""

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastppo.bench.gate import rule
from fastppo.bench.gate.revisions import GateSide
from fastppo.bench.static.remote import RemoteWorker

WORKER = Path(__file__).with_name("worker.py")
BENCH = Path(__file__).resolve().parent.parent
LAUNCH_S = 300.0
"""Longest wait for the answer of one launch."""
STEAL = 0.10
"""Part of the cores' time that a hypervisor may take during a pair before the pair is dropped."""
PADDING = 4096
"""Bytes: the environment is padded by up to so many, so that no build is lucky with its stack."""
TURNS = 12
"""Of both sides within a pair; the least of each counts."""
START = ("start", "memory")
"""Kinds of benchmarks that a process of their own measures."""


@dataclass
class Series:
    """One benchmark: what both sides cost, pair by pair, and what the rule says of it."""

    name: str
    tolerance: float
    base: list[float] = field(default_factory=list)
    head: list[float] = field(default_factory=list)
    verdict: str = rule.OPEN

    @property
    def differences(self) -> list[float]:
        """log(head / base) by pair."""
        return [math.log(h / b) for b, h in zip(self.base, self.head, strict=True)]


@dataclass
class PairedRun:
    """One run over some benchmarks, and what the machine did meanwhile."""

    series: dict[str, Series]
    measured: int = 0
    """Pairs."""
    dropped: int = 0
    """Of these, for the time that was stolen."""
    steal: list[float] = field(default_factory=list)
    """Part of the cores' time that was stolen, by pair."""
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """By benchmark and side: why it could not be measured."""


def launch(side: GateSide, seed: int) -> RemoteWorker:
    """A fresh process of a side.

    Raises:
        MachineError: it cannot be started.
    """
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(side.cache / "numba"),
        "TRITON_CACHE_DIR": str(side.cache / "triton"),
        "FASTPPO_GATE_PADDING": "x" * random.Random(seed).randrange(PADDING),
        "PYTHONHASHSEED": "0",
    }
    for name in ("PYTHONPATH", "WANDB_MODE"):
        env.pop(name, None)
    command = [sys.executable, "-P", str(WORKER), str(side.tree), str(BENCH)]
    command.append(str(time.monotonic()))
    return RemoteWorker(side.name, command, env=env, timeout_s=LAUNCH_S)


def ask(side: GateSide, request: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The answer of a fresh process.

    Raises:
        MachineError: it died; the message has its last line.
    """
    with launch(side, seed) as worker:
        return worker.ask(request)


def costs_of(
    order: Sequence[GateSide], names: Iterable[str], seed: int, turns: int = TURNS
) -> tuple[dict[str, dict[str, float]], dict[tuple[str, str], str]]:
    """What the benchmarks cost on each side: the least over turns, and why some cost nothing.

    The processes of both sides live together and take turns, so that what comes and goes on the
    machine within seconds meets both.
    """
    names = list(names)
    within = [name for name in names if not name.startswith(START)]
    costs: dict[str, dict[str, float]] = {side.name: {} for side in order}
    failures: dict[tuple[str, str], str] = {}
    if within:
        with ExitStack() as stack:
            workers = {side.name: stack.enter_context(launch(side, seed)) for side in order}
            for name, worker in workers.items():
                missing = worker.ask({"run": within})["missing"]
                failures |= {(what, name): reason for what, reason in missing.items()}
            for turn in range(turns):
                for name in list(workers)[:: 1 if turn % 2 == 0 else -1]:
                    for what, cost in workers[name].ask({"turn": turn})["costs"].items():
                        costs[name][what] = min(cost, costs[name].get(what, math.inf))
    for task in dict.fromkeys(name.partition("/")[2] for name in names if name.startswith(START)):
        for side in order:
            costs[side.name] |= ask(side, {"start": task}, seed)["costs"]
    return costs, failures


def measure(
    pair: tuple[GateSide, GateSide],
    series: Sequence[Series],
    controls: Sequence[Series],
    rounds: int,
    said: Callable[[str], None],
) -> PairedRun:
    """Takes pairs, and judges at every look; controls are measured as long as anything is.

    Args:
        said: is given a line before each pair.

    Returns:
        The run; `series` have their verdicts.
    """
    run = PairedRun({one.name: one for one in (*series, *controls)})
    plan = rule.looks(rounds)
    for number in range(rounds):
        still = [one for one in series if one.verdict == rule.OPEN]
        if not still:
            break
        said(f"pair {number + 1} of {rounds}: {len(still)} benchmarks")
        _one_pair(pair, [*still, *controls], run, number)
        for look in plan:
            for one in still:
                if len(one.base) == look.pairs and one.verdict == rule.OPEN:
                    one.verdict = str(rule.judge(one.differences, one.tolerance, look))
    for one in series:  # pairs were dropped: what is there has to do
        if one.verdict == rule.OPEN:
            one.verdict = rule.INCONCLUSIVE
    return run


def _one_pair(
    pair: tuple[GateSide, GateSide], wanted: Sequence[Series], run: PairedRun, number: int
) -> None:
    order = pair if number % 2 == 0 else pair[::-1]
    before = _ticks()
    costs, failures = costs_of(order, (one.name for one in wanted), number)
    stolen = _stolen(before, _ticks())
    run.failures |= failures
    run.measured += 1
    run.steal.append(stolen)
    if stolen > STEAL:
        run.dropped += 1
        return
    for one in wanted:
        values = [costs[side].get(one.name, 0.0) for side in ("base", "head")]
        if min(values) > 0.0:
            one.base.append(values[0])
            one.head.append(values[1])


def _ticks() -> list[int]:
    """Of all cores since the start of the machine: user, nice, system, idle, ..., steal (8th)."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return []
    return [int(word) for word in words[:8]]


def _stolen(before: Sequence[int], after: Sequence[int]) -> float:
    """Part of the time that the hypervisor gave to others."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return spent[7] / max(1, sum(spent)) if len(spent) == 8 else 0.0
