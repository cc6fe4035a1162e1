"""`fastppo bench compare`: how often `fastppo compare` is wrong, on simulated sessions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from tyro.conf import arg

from fastppo.bench.compare import drift
from fastppo.bench.compare.drift import Side
from fastppo.bench.results.intervals import Array
from fastppo.bench.results.simulation import SimulationArgs, markdown_table, percent
from fastppo.errors import UserError

LAUNCHES = (1, 2, 4, 8)
ROUNDS = 8
"""Of each file, spread over its launches."""
NOISE = 0.03
"""Standard deviation of log-rates between launches, and between rounds; of the control, too."""
SLOWDOWNS = (1.0, 1.1, 1.15, 1.2, 1.3)
"""Time of B over that of A."""
WIDE = 0.15
"""A tolerance at which two sessions can show that nothing happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Args(SimulationArgs):
    """How often the verdict of `fastppo compare` is wrong, on simulated sessions."""

    tolerance: Annotated[float, arg(metavar="T")] = 0.05
    """Of compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Standard deviations of what changes between the sessions of A and B."""

    seen: float = 0.0
    """Of code and control alike."""
    unseen: float = 0.0
    """Of the code alone."""
    control: bool = True
    """Whether there is one."""


DRIFTS = (
    Drift(),
    Drift(seen=0.05),
    Drift(seen=0.08),
    Drift(unseen=0.05),
    Drift(seen=0.08, unseen=0.05),
    Drift(unseen=0.08),
    Drift(unseen=0.05, control=False),
    Drift(unseen=0.08, control=False),
)


@dataclass(frozen=True, slots=True)
class CompareCell:
    """What became of the comparisons at one slow-down. All parts are of all comparisons."""

    drift: Drift
    launches: int
    slowdown: float
    void: float
    regression: float
    improved: float
    passed: float
    """At the tolerance WIDE; the others are at the one asked for."""


def simulate(
    between: Drift,
    launches: int,
    slowdown: float,
    *,
    trials: int,
    tolerance: float,
    rng: np.random.Generator,
    noise: float = NOISE,
) -> CompareCell:
    """Draws pairs of files and judges them by the rule of `fastppo compare`.

    Args:
        launches: in each file.
        noise: see NOISE.
    """
    machine = rng.normal(0.0, between.seen, trials)
    code = machine + rng.normal(0.0, between.unseen, trials) - np.log(slowdown)

    def pair(effect: Array) -> tuple[Side, Side]:
        a, b = (_side(at, launches, noise, rng) for at in (np.zeros(trials), effect))
        return a, b

    ours = pair(code)
    controls = pair(machine) if between.control else None
    found = drift.change(*ours, controls)
    shown = np.zeros(trials) if controls is None else drift.moved(*controls)
    void = drift.void(shown, tolerance)
    said = np.where(void, "", drift.verdicts(found, tolerance))
    wide = np.where(drift.void(shown, WIDE), "", drift.verdicts(found, WIDE))
    return CompareCell(
        between, launches, slowdown,
        void=float(void.mean()),
        regression=float((said == drift.REGRESSION).mean()),
        improved=float((said == drift.IMPROVED).mean()),
        passed=float((wide == drift.PASS).mean()),
    )  # fmt: skip


def _side(at: Array, launches: int, noise: float, rng: np.random.Generator) -> Side:
    """A file: rounds of launches around `at`, [trials]."""
    rounds = ROUNDS // launches
    shape = (at.size, launches, rounds)
    samples = at[:, None, None] + rng.normal(0.0, noise, shape)
    samples += rng.normal(0.0, noise, (at.size, launches, 1))
    error = samples.var(axis=-1, ddof=min(1, rounds - 1)).mean(axis=-1) / rounds
    return Side(np.median(samples, axis=-1), error)


def table(trials: int, tolerance: float, seed: int) -> Iterator[CompareCell]:
    """Every drift, number of launches and slow-down; the same seed gives the same table."""
    rng = np.random.default_rng(seed)
    for between in DRIFTS:
        for launches in LAUNCHES:
            for slowdown in SLOWDOWNS:
                yield simulate(
                    between, launches, slowdown, trials=trials, tolerance=tolerance, rng=rng
                )  # fmt: skip


def markdown(cells: list[CompareCell]) -> str:
    """One row per drift and number of launches."""
    slower = [f"{slowdown:g} x" for slowdown in SLOWDOWNS if slowdown > 1]
    head = (
        "drift seen by the control", "not seen", "launches", "void",
        f"equal: PASS at {WIDE:.0%}", "equal: REGRESSION", *slower,
    )  # fmt: skip
    shown = []
    rows: dict[tuple[Drift, int], list[CompareCell]] = {}
    for cell in cells:
        rows.setdefault((cell.drift, cell.launches), []).append(cell)
    for (between, launches), found in rows.items():
        equal = next(cell for cell in found if cell.slowdown == 1)
        seen = f"{between.seen:.0%}" if between.control else "no control"
        parts = [equal.void, equal.passed, equal.regression]
        parts += [cell.regression for cell in found if cell.slowdown > 1]
        shown.append((seen, f"{between.unseen:.0%}", str(launches), *map(percent, parts)))
    return markdown_table(head, shown)


def run(args: Args) -> int:
    """Simulates and prints.

    Raises:
        UserError: a number is off, or the file cannot be written.
        MachineError: the disk refuses.
    """
    args.check()
    if not (0 <= args.tolerance < 1):
        raise UserError(f"--tolerance: {args.tolerance} must be a number from 0 to below 1")
    text = markdown(list(table(args.trials, args.tolerance, args.seed)))
    about = f"x: REGRESSION where B takes so much longer, at {args.tolerance:.0%} tolerance"
    args.publish(text, about)
    return 0
