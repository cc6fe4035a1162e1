"""`fastppo bench compare`: how often the verdict on two files is wrong, by simulation."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastppo.bench.compare.verdicts import IMPROVED, PASS, REGRESSION, judge
from fastppo.bench.report.data import Entry
from fastppo.errors import UserError

STUDIES = 4_000
TOLERANCE = 0.05
NOISE = 0.05
"""Standard deviation of the logarithm of a round, and of what launches differ by."""
PLANS = ((8, 4), (3, 1))
"""Rounds and launches of each file."""
DRIFTS = (0.0, 0.05, 0.08)
"""Standard deviation of what moved between the sessions and no control shows."""
SLOWER = (0.0, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Cell:
    """Comparisons of one kind."""

    rounds: int
    launches: int
    drift: float
    slower: float
    regression: float
    """Share of the comparisons with this verdict, as the next two."""
    passed: float
    improved: float


def simulate(
    rounds: int, launches: int, drift: float, slower: float, studies: int, seed: int = 0
) -> Cell:
    """Compares a program with itself, or with one that is slower by a share."""
    key = [seed, rounds, launches, round(100 * drift), round(100 * slower)]
    rng = np.random.default_rng(key)
    said = []
    for _ in range(studies):
        rate = (1.0 - slower) * np.exp(rng.normal(0.0, drift))
        a, b = (_file(rng, middle, rounds, launches) for middle in (1.0, rate))
        said.append(judge(a, b, TOLERANCE).verdict)
    shares = [said.count(verdict) / studies for verdict in (REGRESSION, PASS, IMPROVED)]
    return Cell(rounds, launches, drift, slower, *shares)


def _file(rng: np.random.Generator, rate: float, rounds: int, launches: int) -> Entry:
    parts = []
    for launch in range(launches):
        count = len(range(launch, rounds, launches))
        logs = rng.normal(0.0, NOISE) + rng.normal(0.0, NOISE, count)
        parts.append({"order": launch, "samples": (1000.0 * rate * np.exp(logs)).tolist()})
    raw = {"id": "x", "impl": "x", "unit": "env_steps/s", "better": "higher", "clock": "wall"}
    return Entry("train", {**raw, "launches": parts})


def cells(studies: int) -> Iterator[Cell]:
    """Every plan, drift and slow-down."""
    for rounds, launches in PLANS:
        for drift in DRIFTS:
            for slower in SLOWER:
                yield simulate(rounds, launches, drift, slower, studies)


def markdown(found: list[Cell]) -> str:
    """A row per cell."""
    lines = [
        "| rounds x launches | drift | B slower by | REGRESSION | PASS | IMPROVED |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {cell.rounds} x {cell.launches} | {cell.drift:.0%} | {cell.slower:.0%} "
        f"| {cell.regression:.1%} | {cell.passed:.1%} | {cell.improved:.1%} |"
        for cell in found
    ]
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fastppo bench compare`."""
    parser.add_argument(
        "--studies", type=int, default=STUDIES, metavar="N", help=f"per row (default {STUDIES})"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the table as markdown.

    Raises:
        UserError: the number of studies is below 1.
    """
    if args.studies < 1:
        raise UserError(f"--studies: {args.studies} must be 1 or more")
    print(markdown(list(cells(args.studies))), end="")
    return 0
