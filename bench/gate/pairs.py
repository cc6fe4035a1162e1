"""Pairs of launches, AB BA AB ..., until every benchmark has a verdict or the rounds are over."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastppo.bench.gate import rule
from fastppo.bench.gate.revisions import GateSide
from fastppo.bench.gate.subject import Failures, Subject

STEAL = 0.10
"""Part of the cores' time that a hypervisor may take during a pair before the pair is dropped."""


@dataclass
class Series:
    """One benchmark: what both sides cost, pair by pair, and what the rule says of it."""

    name: str
    tolerance: float
    """0 until the first pair, if it is the subject's to say."""
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
    failures: Failures = field(default_factory=dict)


def measure(
    subject: Subject,
    pair: tuple[GateSide, GateSide],
    series: Sequence[Series],
    controls: Sequence[Series],
    rounds: int,
    said: Callable[[str], None],
    *,
    patient: bool = False,
) -> PairedRun:
    """Takes pairs, and judges at every look; controls are measured as long as anything is.

    Args:
        said: is given a line before each pair.
        patient: as for `rule.looks`.

    Returns:
        The run; `series` have their verdicts.
    """
    run = PairedRun({one.name: one for one in (*series, *controls)})
    plan = rule.looks(rounds, patient=patient)
    for number in range(rounds):
        still = [one for one in series if one.verdict == rule.OPEN]
        if not still:
            break
        said(f"pair {number + 1} of {rounds}: {len(still)} benchmarks")
        _one_pair(subject, pair, [*still, *controls], run, number)
        for look in plan:
            for one in still:
                if len(one.base) == look.pairs and one.verdict == rule.OPEN:
                    one.verdict = str(rule.judge(one.differences, one.tolerance, look))
    for one in series:  # pairs were dropped: what is there has to do
        if one.verdict == rule.OPEN:
            one.verdict = rule.INCONCLUSIVE
    return run


def _one_pair(
    subject: Subject,
    pair: tuple[GateSide, GateSide],
    wanted: Sequence[Series],
    run: PairedRun,
    number: int,
) -> None:
    order = pair if number % 2 == 0 else pair[::-1]
    before = _ticks()
    costs, failures = subject.costs(order, [one.name for one in wanted], number)
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
            one.tolerance = one.tolerance or subject.tolerance(one.name, values[0])
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
