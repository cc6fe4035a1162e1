"""`fastppo bench parity`: how often the rule of learning parity is wrong, on simulated learners."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastppo.bench.results import parity
from fastppo.bench.results.parity import LATE, RETURN_MARGIN, SHARE_MARGIN, STEPS_MARGIN, Runs
from fastppo.bench.results.simulation import ParityArgs, markdown_table, percent

SEEDS = (5, 10, 20, 40)
SPREADS = (0.2, 0.3)
"""Standard deviations of the env steps of a seed that gets there, over their mean."""
NOISE = 0.05
"""Standard deviation of a seed's final return, over what the base learned."""
BASE_STEPS = 30_000.0
"""Mean of the base's seeds that get there; only ratios to it matter."""
CHUNK = 2000
"""Studies at a time; some 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """An implementation, and the base that it is compared with."""

    name: str
    wrong: bool = True
    """Whether it lies on a margin or beyond one, so that to pass is wrong; else it is the base's
    equal, and to fail is."""
    fails: float = 0.0
    """Part of its seeds that never learn anything."""
    forgets: float = 0.0
    """Part that get there, and end with nothing."""
    ratio: float = 1.0
    """Mean env steps of its seeds that get there, over the base's."""
    drop: float = 0.0
    """Of the final return, over what the base learned."""
    base_fails: float = 0.0
    horizon: float = 3.0
    """Env steps of a run, over the mean of the base's seeds that get there."""


def on_the_margin_of_steps(fails: float, horizon: float) -> Learner:
    """Its restricted mean is STEPS_MARGIN times the base's."""
    counted = min(horizon, LATE)
    ratio = (STEPS_MARGIN - fails * counted) / (1.0 - fails)
    name = f"env steps {STEPS_MARGIN:g} times"
    return Learner(name=name, fails=fails, ratio=ratio, horizon=horizon)


SHARE, RETURN = f"{-100 * SHARE_MARGIN:g} points", f"return -{RETURN_MARGIN:.0%}"
LEARNERS = (
    Learner(name="equal", wrong=False),
    Learner(name="equal", wrong=False, horizon=5.0),
    Learner(name="equal", wrong=False, horizon=10.0),
    Learner(name="equal", wrong=False, fails=0.05, base_fails=0.05),
    Learner(name="equal", wrong=False, fails=0.1, base_fails=0.1),
    on_the_margin_of_steps(0.0, 3.0),
    on_the_margin_of_steps(0.056, 3.0),
    on_the_margin_of_steps(0.056, 10.0),
    on_the_margin_of_steps(0.1, 3.0),
    on_the_margin_of_steps(0.1, 6.0),
    on_the_margin_of_steps(0.2, 3.5),
    Learner(name=RETURN, drop=RETURN_MARGIN),
    Learner(name=RETURN, drop=RETURN_MARGIN, fails=0.056),
    Learner(name=SHARE, fails=SHARE_MARGIN),
    Learner(name=SHARE, fails=0.1 + SHARE_MARGIN, base_fails=0.1),
    Learner(name=f"{SHARE}, forgotten", forgets=SHARE_MARGIN),
    Learner(name="env steps twice", ratio=2.0, horizon=5.0),
    Learner(name="return -30%", drop=0.3),
    Learner(name="half fail", fails=0.5),
)


@dataclass(frozen=True, slots=True)
class ParityCell:
    """What became of the studies of one learner."""

    learner: Learner
    spread: float
    seeds: int
    """Of each side."""
    passed: float
    failed: float
    """Parts of the studies; the rest cannot tell."""


def simulate(
    learner: Learner, spread: float, seeds: int, *, trials: int, rng: np.random.Generator
) -> ParityCell:
    """Draws studies and has `parity` judge them."""
    base = Learner(name="base", fails=learner.base_fails, horizon=learner.horizon)
    passed = failed = 0
    for start in range(0, trials, CHUNK):
        shape = min(CHUNK, trials - start), seeds
        ours, theirs = (draw(one, spread, shape, rng) for one in (learner, base))
        found = parity.weigh(ours, theirs, learner.horizon * BASE_STEPS)
        all_passed = np.all([one.passed for one in found], axis=0)
        any_failed = np.any([one.failed for one in found], axis=0)
        said = parity.combined(all_passed, any_failed, seeds)
        passed, failed = passed + int(said[0].sum()), failed + int(said[1].sum())
    return ParityCell(learner, spread, seeds, passed / trials, failed / trials)


def draw(learner: Learner, spread: float, shape: tuple[int, int], rng: np.random.Generator) -> Runs:
    """Runs of many studies: log-normal env steps, normal returns from 0 to 1.

    Args:
        shape: (studies, seeds of each).
    """
    sigma = np.log1p(spread**2) ** 0.5
    steps = BASE_STEPS * learner.ratio * rng.lognormal(-(sigma**2) / 2, sigma, shape)
    luck = rng.random(shape)
    horizon = BASE_STEPS * learner.horizon
    reached = (luck >= learner.fails) & (steps < horizon)
    empty = luck < learner.fails + learner.forgets
    final = np.where(empty, 0.0, 1.0 - learner.drop) + rng.normal(0.0, NOISE, shape)
    return Runs(np.zeros(shape), final, np.where(reached, steps, horizon), reached)


def table(trials: int, seed: int) -> Iterator[ParityCell]:
    """Every learner, spread and number of seeds; the same seed gives the same table."""
    rng = np.random.default_rng(seed)
    for learner in LEARNERS:
        for spread in SPREADS:
            for seeds in SEEDS:
                yield simulate(learner, spread, seeds, trials=trials, rng=rng)


def markdown(cells: list[ParityCell]) -> str:
    """One row per learner and spread, one column per number of seeds."""
    head = (
        "learner",
        "seeds that fail (base)",
        "horizon",
        "spread",
        *(f"{n} seeds" for n in SEEDS),
    )
    rows: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        one = cell.learner
        row = (
            one.name,
            f"{percent(one.fails + one.forgets)} ({percent(one.base_fails)})",
            f"{one.horizon:g} x",
            f"{cell.spread:.0%}",
        )
        rows.setdefault(row, []).append(f"{percent(cell.passed)} / {percent(cell.failed)}")
    return markdown_table(head, [(*row, *shares) for row, shares in rows.items()])


def run(args: ParityArgs) -> int:
    """Simulates and prints.

    Raises:
        UserError: a number is off, or the file cannot be written.
        MachineError: the disk refuses.
    """
    args.check()
    text = markdown(list(table(args.trials, args.seed)))
    args.publish(text, "passed / failed, in each number of seeds; all other studies cannot tell")
    return 0
