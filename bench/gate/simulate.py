"""`fastppo gate simulate`: how often the gate is wrong, by its own rule on simulated machines."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastppo.bench.gate import rule
from fastppo.bench.gate.args import SimulateArgs
from fastppo.bench.gate.noise import MACHINES, Machine, pairs
from fastppo.bench.results.simulation import markdown_table
from fastppo.errors import UserError

SLOWDOWNS = (0.9, 1.0, 1.05, 1.1, 1.2, 1.5)
CHUNK = 2000
"""Runs at a time; some 5 MB of samples."""
TOLD = (
    rule.PASS, rule.IMPROVED, rule.INCONCLUSIVE, rule.SUSPECT, rule.FLAKY, rule.REGRESSION
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GateCell:
    """What became of the runs on one machine at one slow-down."""

    machine: str
    slowdown: float
    trials: int
    counts: dict[str, int]
    """Runs by verdict: after the first run (SUSPECT among them), and after the second (FLAKY and
    REGRESSION, which share out the SUSPECT)."""
    mean_pairs: float
    """Of the first run."""

    def part(self, verdict: str) -> float:
        """Of the runs."""
        return self.counts.get(verdict, 0) / self.trials


def simulate(
    machine: Machine,
    slowdown: float,
    *,
    trials: int,
    tolerance: float,
    rounds: int,
    rng: np.random.Generator,
) -> GateCell:
    """Runs the gate's rule on simulated pairs, and confirms every suspicion on fresh ones.

    Args:
        slowdown: cost of the head over that of the base.
    """
    plan, patient = rule.looks(rounds), rule.looks(rounds, patient=True)
    counts: Counter[str] = Counter()
    taken = 0
    for start in range(0, trials, CHUNK):
        shape = min(CHUNK, trials - start), rounds
        first, used = rule.decide(pairs(machine, slowdown, shape, rng), tolerance, plan)
        suspects = int(np.count_nonzero(first == rule.SUSPECT))
        second = pairs(machine, slowdown, (suspects, rounds), rng)
        again, _ = rule.decide(second, tolerance, patient)
        counts.update(map(str, first))
        counts.update(rule.confirm(rule.SUSPECT, str(verdict)) for verdict in again)
        taken += int(used.sum())
    return GateCell(machine.name, slowdown, trials, dict(counts), taken / trials)


def table(trials: int, tolerance: float, rounds: int, seed: int) -> Iterator[GateCell]:
    """Every machine at every slow-down; the same seed gives the same table."""
    rng = np.random.default_rng(seed)
    for machine in MACHINES:
        for slowdown in SLOWDOWNS:
            yield simulate(
                machine, slowdown, trials=trials, tolerance=tolerance, rounds=rounds, rng=rng
            )  # fmt: skip


def markdown(cells: list[GateCell]) -> str:
    """One row per cell."""
    head = ("machine", "head / base", *TOLD, "pairs")
    rows = []
    for cell in cells:
        parts = [_percent(cell.part(verdict)) for verdict in TOLD]
        rows.append((cell.machine, f"{cell.slowdown:g}", *parts, f"{cell.mean_pairs:.1f}"))
    return markdown_table(head, rows)


def _percent(part: float) -> str:
    return f"{part:.3%}" if 0.0 < part < 0.001 else f"{part:.1%}"


def run(args: SimulateArgs) -> int:
    """Simulates and prints.

    Raises:
        UserError: a number is off, or the file cannot be written.
        MachineError: the disk refuses.
    """
    args.check()
    if args.rounds < rule.SECOND_LOOK:
        raise UserError(
            f"--rounds: {args.rounds} shows no slow-down; take {rule.SECOND_LOOK} or more"
        )
    if not (0 < args.tolerance < 1 and math.isfinite(args.tolerance)):
        raise UserError(f"--tolerance: {args.tolerance} must lie between 0 and 1, such as 0.05")
    text = markdown(list(table(args.trials, args.tolerance, args.rounds, args.seed)))
    args.publish(text)
    return 0
