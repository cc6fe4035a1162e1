"""Machines to try the rule on: what the time of a launch consists of besides the code."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from fastppo.bench.gate.signed_rank import Array

SAMPLES = 7
"""Measured within one launch; the least of them counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Standard deviations of log-time, guessed from what public CI runners were seen to do.

    They rank designs, and show how a rule behaves as noise grows; no machine is promised by them.
    """

    name: str
    process: float
    """Of a process: its addresses, its hash seed, the pages it got."""
    sample: float
    """Of a sample within a process; slow ones only, with heavy tails (Student's t of 3)."""
    drift: float
    """Of the step of a random walk from launch to launch: clocks, temperature, neighbours."""
    bursts: float
    """Part of the launches that a neighbour disturbs."""
    burst: float
    """Of the slow-down by such a neighbour."""
    odd_builds: float = 0.01
    """Part of the builds whose placement in memory alone moves them by `odd_placement`."""
    odd_placement: float = 0.10
    placement: float = 0.012
    """Of the placement of all other builds."""


MACHINES = (
    Machine(name="quiet", process=0.005, sample=0.01, drift=0.002, bursts=0.0, burst=0.0),
    Machine(name="shared", process=0.03, sample=0.03, drift=0.01, bursts=0.05, burst=0.15),
    Machine(name="bad", process=0.06, sample=0.06, drift=0.02, bursts=0.15, burst=0.30),
)


def launches(machine: Machine, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Log-times of equal code in launches one after the other, as the gate takes them.

    Args:
        shape: (runs, launches of each).

    Returns:
        [runs, launches], the least of SAMPLES.
    """
    drift = rng.normal(0.0, machine.drift, shape).cumsum(axis=1)
    process = rng.normal(0.0, machine.process, shape)
    disturbed = rng.random(shape) < machine.bursts
    burst = disturbed * np.abs(rng.normal(0.0, machine.burst, shape))
    # the least of SAMPLES |t|, drawn at once: its survival function is that of one, to their power
    least = -special.stdtrit(3, rng.random(shape) ** (1 / SAMPLES) / 2)
    times: Array = drift + process + burst + least * machine.sample
    return times


def placement(machine: Machine, runs: int, rng: np.random.Generator) -> Array:
    """[runs] log-ratios of head over base that come from where the two lie in memory alone."""
    odd = rng.random(runs) < machine.odd_builds
    spread = np.where(odd, machine.odd_placement, machine.placement)
    return rng.normal(0.0, spread)


def pairs(
    machine: Machine, slowdown: float, shape: tuple[int, int], rng: np.random.Generator
) -> Array:
    """Differences of interleaved pairs, AB BA AB ...: what one run of the gate sees.

    Args:
        slowdown: cost of the head over that of the base.
        shape: (runs, pairs of each).

    Returns:
        [runs, pairs]
    """
    runs, count = shape
    times = launches(machine, (runs, 2 * count), rng).reshape(runs, count, 2)
    turn = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)  # the head comes second, then first
    effect = np.log(slowdown) + placement(machine, runs, rng)
    differences: Array = turn * (times[..., 1] - times[..., 0]) + effect[:, None]
    return differences
