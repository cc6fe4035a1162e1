"""`fastppo bench coverage`: how often the intervals of rounds and launches cover, by simulation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from tyro.conf import arg

from fastppo.bench.results.intervals import COVERS, over_launches
from fastppo.bench.results.simulation import SimulationArgs

NOISE = 0.05
"""Standard deviation of the logarithm of a round."""
PLANS = ((3, 1), (6, 1), (12, 2), (6, 3), (8, 4), (12, 4), (24, 8))
"""Rounds and launches."""
SPREADS = (0.0, 1.0, 2.0)
"""How many times as much launches differ as rounds do."""
TAILS = ("normal", "heavy")


@dataclass(frozen=True, slots=True)
class CoverageCell:
    """Studies of one plan on one machine."""

    rounds: int
    launches: int
    spread: float
    tail: str
    label: str
    covered: float
    """Share of the studies whose interval holds the true value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(SimulationArgs):
    """How often the intervals of rounds and launches cover the true value."""

    trials: Annotated[int, arg(metavar="N")] = 4_000
    """Studies per cell."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """The same seed gives the same table."""


def simulate(
    rounds: int, launches: int, spread: float, tail: str, studies: int, seed: int = 0
) -> CoverageCell:
    """Measures a program of rate 1 again and again.

    Args:
        tail: of a round's noise; heavy is Student's with three degrees of freedom.
    """
    rng = np.random.default_rng([seed, rounds, launches, round(10 * spread), TAILS.index(tail)])
    each = [len(range(launch, rounds, launches)) for launch in range(launches)]
    covered, label = 0, ""
    for _ in range(studies):
        noise = rng.normal(0.0, NOISE, rounds)
        if tail == "heavy":
            noise = NOISE * rng.standard_t(3, rounds)
        moved = np.repeat(rng.normal(0.0, spread * NOISE, launches), each)
        values = np.split(np.exp(noise + moved), np.cumsum(each)[:-1])
        found = over_launches([list(map(float, part)) for part in values])
        covered += found.low <= 1.0 <= found.high
        label = found.label
    return CoverageCell(rounds, launches, spread, tail, label, covered / studies)


def cells(studies: int, seed: int = 0) -> Iterator[CoverageCell]:
    """Every plan on every machine."""
    for rounds, launches in PLANS:
        for tail in TAILS:
            for spread in SPREADS:
                yield simulate(rounds, launches, spread, tail, studies, seed)


def markdown(found: list[CoverageCell]) -> str:
    """A row per plan and tail, a column per spread of launches."""
    heads = " | ".join(f"{spread:g} x" for spread in SPREADS)
    lines = [
        f"| rounds x launches | label | noise | {heads} |",
        f"|---|---|---|{'---:|' * len(SPREADS)}",
    ]
    rows: dict[tuple[int, int, str, str], list[str]] = {}
    for cell in found:
        key = (cell.rounds, cell.launches, cell.label, cell.tail)
        rows.setdefault(key, []).append(f"{cell.covered:.1%}")
    lines += [
        f"| {rounds} x {launches} | {label} | {tail} | {' | '.join(shares)} |"
        for (rounds, launches, label, tail), shares in rows.items()
    ]
    return "\n".join(lines) + "\n"


def lowest(found: list[CoverageCell]) -> float:
    """The least coverage among the intervals that promise it."""
    return min(cell.covered for cell in found if cell.label == COVERS)


def run(args: Args) -> int:
    """Simulates and prints.

    Raises:
        UserError: a number is off, or the file cannot be written.
        MachineError: the disk refuses.
    """
    args.check()
    text = markdown(list(cells(args.trials, args.seed)))
    args.publish(text)
    return 0
