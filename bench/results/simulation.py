"""What the commands that simulate a rule's errors have in common."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from fastppo.bench.results import result
from fastppo.errors import UserError
from fastppo.paths import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationArgs:
    """Arguments of every simulation."""

    trials: Annotated[int, arg(metavar="N")] = 20_000
    """Simulated measurements per row."""
    seed: Annotated[int, arg(metavar="N")] = 1
    """The same seed gives the same table."""
    md: Output = None
    """Write the table here, too."""

    def check(self) -> None:
        """Raises UserError where a number is off."""
        if self.trials < 1:
            raise UserError(f"--trials: {self.trials} must be 1 or above")
        if self.seed < 0:
            raise UserError(f"--seed: {self.seed} must be 0 or above")

    def publish(self, table: str, about: str = "") -> None:
        """Prints the table, and writes it where asked for.

        Args:
            about: a line above it, on the terminal only.

        Raises:
            UserError, MachineError: it cannot be written.
        """
        print(f"{about}\n\n{table}" if about else table, end="")
        if self.md is not None:
            result.write_text(self.md, table, "--md")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityArgs(SimulationArgs):
    """How often the verdict of `bench learn` is wrong, on simulated learners."""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def percent(part: float) -> str:
    """Of a hundred, with a second digit where the first would be zero."""
    return "0" if part == 0 else f"{part:.2%}" if part < 0.001 else f"{part:.1%}"
