"""`fastppo bench coverage`: how often the intervals of rounds and launches cover, by simulation."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastppo import paths
from fastppo.bench.results import result
from fastppo.bench.results.intervals import COVERS, over_launches
from fastppo.errors import UserError

STUDIES = 4_000
NOISE = 0.05
"""Standard deviation of the logarithm of a round."""
PLANS = ((3, 1), (6, 1), (12, 2), (6, 3), (8, 4), (12, 4), (24, 8))
"""Rounds and launches."""
SPREADS = (0.0, 1.0, 2.0)
"""How many times as much launches differ as rounds do."""
TAILS = ("normal", "heavy")


@dataclass(frozen=True, slots=True)
class Cell:
    """Studies of one plan on one machine."""

    rounds: int
    launches: int
    spread: float
    tail: str
    label: str
    covered: float
    """Share of the studies whose interval holds the true value."""


def simulate(
    rounds: int, launches: int, spread: float, tail: str, studies: int, seed: int = 0
) -> Cell:
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
    return Cell(rounds, launches, spread, tail, label, covered / studies)


def cells(studies: int, seed: int = 0) -> Iterator[Cell]:
    """Every plan on every machine."""
    for rounds, launches in PLANS:
        for tail in TAILS:
            for spread in SPREADS:
                yield simulate(rounds, launches, spread, tail, studies, seed)


def markdown(found: list[Cell]) -> str:
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


def lowest(found: list[Cell]) -> float:
    """The least coverage among the intervals that promise it."""
    return min(cell.covered for cell in found if cell.label == COVERS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fastppo bench coverage`."""
    add = parser.add_argument
    add("--trials", type=int, default=STUDIES, help="studies per cell (default %(default)s)")
    add("--seed", type=int, default=0, help="another one for other random numbers (default 0)")
    add("--md", type=paths.output, metavar="F", help="write the table here, too")


def run(args: argparse.Namespace) -> int:
    """Simulates and prints.

    Raises:
        UserError: a number is off, or the file cannot be written.
        MachineError: the disk refuses.
    """
    if args.trials < 1:
        raise UserError(f"--trials: {args.trials} must be 1 or above")
    if args.seed < 0:
        raise UserError(f"--seed: {args.seed} must be 0 or above")
    text = markdown(list(cells(args.trials, args.seed)))
    print(text, end="")
    if args.md is not None:
        result.write_text(args.md, text, "--md")
    return 0
