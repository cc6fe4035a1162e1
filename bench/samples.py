"""Slices of running time, and what pairs of them say."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

PHASES = ("env", "policy", "copy", "gae", "update", "other")


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice: whole updates of one implementation, timed by the worker that ran them."""

    env_steps: int
    """Transitions; reset rows do not count."""
    updates: int
    seconds: float
    phases: dict[str, float]
    """Seconds per phase; empty for EnvPool alone."""

    @property
    def env_steps_per_s(self) -> float:
        return self.env_steps / self.seconds


Round = dict[str, Sample]
"""One slice of every implementation, taken next to each other."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the rounds of one environment amount to."""

    rates: dict[str, float]
    """Median env steps/s per implementation."""
    ratio: float
    """Median over rounds of fastppo's rate over the reference's in the same round."""
    ratio_low: float
    ratio_high: float
    """Smallest and largest ratio of any round."""
    phase_shares: dict[str, float]
    """Where fastppo's time went, over all rounds; adds to 1."""
    num_rounds: int


def summarise(rounds: Sequence[Round]) -> Summary:
    """Medians, and the ratio of pairs: what slows a shared machine slows both slices of a round.

    Args:
        rounds: at least one, each with `fastppo`, `reference` and `envpool`.
    """
    names = ("fastppo", "reference", "envpool")
    ratios = [r["fastppo"].env_steps_per_s / r["reference"].env_steps_per_s for r in rounds]
    seconds = {phase: sum(r["fastppo"].phases.get(phase, 0.0) for r in rounds) for phase in PHASES}
    total = sum(seconds.values())
    return Summary(
        rates={name: median(r[name].env_steps_per_s for r in rounds) for name in names},
        ratio=median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        phase_shares={phase: value / total if total else 0.0 for phase, value in seconds.items()},
        num_rounds=len(rounds),
    )
