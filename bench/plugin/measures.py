"""What the fixtures measure; nothing here knows of pytest-benchmark."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest

from fastppo.bench.gate import rule
from fastppo.bench.gate.signed_rank import middle
from fastppo.bench.kernels.clocks import cpu_clock

SLICES = 3
"""Of each side in a pair; the least counts."""
Function = Callable[[], Any]


class GateWarning(UserWarning):
    """A comparison that tells nothing."""


@dataclass(frozen=True, slots=True)
class PairedCalls:
    """Two functions, and what the rule says of the second."""

    base: list[float]
    """Seconds per call, pair by pair."""
    head: list[float]
    tolerance: float
    verdict: str

    @property
    def differences(self) -> list[float]:
        """log(head / base) by pair."""
        return [math.log(h / b) for b, h in zip(self.base, self.head, strict=True)]

    @property
    def ratio(self) -> float:
        """Cost of the head over that of the base."""
        return math.exp(middle(self.differences, rule.FIRST_ALPHA).value)

    @property
    def low(self) -> float:
        """Lower bound of the ratio, wrong with probability 0.02 at most."""
        return math.exp(middle(self.differences, rule.FIRST_ALPHA).low)

    @property
    def high(self) -> float:
        """Upper bound of the ratio, wrong with probability 0.02 at most."""
        return math.exp(middle(self.differences, rule.FIRST_ALPHA).high)

    @property
    def pairs(self) -> int:
        """How many were taken."""
        return len(self.base)

    def summary(self) -> dict[str, Any]:
        """For a result file."""
        return {
            "verdict": self.verdict,
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "pairs": self.pairs,
            "tolerance": self.tolerance,
        }

    def judge(self, *, strict: bool) -> None:
        """Fails the test where the head is slower; warns, or fails, where nothing can be told."""
        said = (
            f"{self.verdict}: head costs {self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}] times "
            f"base, {self.tolerance:.0%} allowed, {self.pairs} pairs"
        )
        if self.verdict == rule.REGRESSION:
            pytest.fail(said, pytrace=False)
        if self.verdict in (rule.INCONCLUSIVE, rule.FLAKY):
            if strict:
                pytest.fail(said, pytrace=False)
            warnings.warn(said, GateWarning, stacklevel=4)


def compare(base: Function, head: Function, tolerance: float, rounds: int) -> PairedCalls:
    """Pairs of slices in this process, base and head in turns; a suspicion is tried once more.

    Raises:
        ValueError: the tolerance or the number of rounds is off.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: {tolerance} must lie between 0 and 1, such as 0.05")
    first = _run(base, head, tolerance, rounds)
    if first.verdict != rule.SUSPECT:
        return first
    second = _run(base, head, tolerance, rounds, patient=True)
    verdict = rule.confirm(first.verdict, second.verdict)
    return PairedCalls(first.base, first.head, tolerance, verdict)


def _run(
    base: Function, head: Function, tolerance: float, rounds: int, *, patient: bool = False
) -> PairedCalls:
    plan = rule.looks(rounds, patient=patient)
    clocks = (cpu_clock(base), cpu_clock(head))
    costs: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        least = [math.inf, math.inf]
        for turn in range(2 * SLICES):
            side = (number + turn + turn // 2) % 2  # base head head base base head
            least[side] = min(least[side], clocks[side]())
        for side, cost in enumerate(least):
            costs[side].append(cost)
        found = PairedCalls(*costs, tolerance, rule.OPEN)
        for look in plan:
            if look.pairs == number + 1:
                verdict = str(rule.judge(found.differences, tolerance, look))
                if verdict != rule.OPEN:
                    return PairedCalls(*costs, tolerance, verdict)
    raise AssertionError("the last look always says something")


def rates(function: Callable[[], float], rounds: int) -> tuple[list[float], float]:
    """Seconds per step of every round, and the median rate.

    Raises:
        ValueError: no round was asked for, or the function made no step.
    """
    if rounds < 1:
        raise ValueError(f"rounds: {rounds} must be 1 or above")
    function()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        steps = function()
        spent = time.perf_counter() - begin
        if not steps > 0:
            raise ValueError(f"the function returned {steps!r}; it must return its number of steps")
        seconds.append(spent / steps)
    return seconds, 1.0 / median(seconds)


def has_gpu() -> bool:
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


def on_gpu(function: Function, rounds: int) -> tuple[list[float], dict[str, float]]:
    """Samples with an empty L2, and the medians by clock."""
    import torch

    from fastppo.bench.kernels.clocks import ColdClock, graph_clock

    clocks = {"cold": ColdClock(torch.device("cuda"))(function), "graph": graph_clock(function)}
    samples = {name: [clock() for _ in range(rounds)] for name, clock in clocks.items()}
    return samples["cold"], {name: median(some) for name, some in samples.items()}


def check(function: Function, allowed: Mapping[str, int | None]) -> Any:
    """Counts one call, after one that warms up; fails the test with what is above the allowed."""
    from fastppo.bench.gate.counts import counted

    function()
    counts = counted(function)
    found = {
        "operators": sum(counts.operators.values()),
        "bytes allocated": counts.allocated,
        "waits for the device": sum(counts.syncs.values()),
    }
    if allowed["graph breaks"] is not None:
        import torch._dynamo

        found["graph breaks"] = torch._dynamo.explain(function)().graph_break_count
    above = [
        f"{what}: {found[what]}, {most} allowed{_named(what, counts.syncs)}"
        for what, most in allowed.items()
        if most is not None and found[what] > most
    ]
    if above:
        pytest.fail("; ".join(above), pytrace=False)
    return counts


def _named(what: str, syncs: Mapping[str, int]) -> str:
    return f" ({', '.join(syncs)})" if what == "waits for the device" else ""
