"""What may be typed behind `fastppo gate` and its parts."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from fastppo.bench.publish import Outputs
from fastppo.bench.results.simulation import SimulationArgs
from fastppo.paths import Folder, Output, Role, Source


def matches(name: str, patterns: str) -> bool:
    """Whether a benchmark's name fits one of some patterns, as a shell has them."""
    return any(fnmatch(name, pattern.strip()) for pattern in patterns.split(","))


@dataclass(frozen=True, kw_only=True)  # no slots: the commands have a second base with fields
class GateOptions:
    """What is gated, and how long."""

    only: Annotated[str, arg(metavar="PATTERN[,PATTERN]", help_behavior_hint="(default: all)")] = (
        "*"
    )
    """Only benchmarks whose name matches one, such as kernel/gae*."""
    rounds: Annotated[int, arg(metavar="N")] = 20
    """Pairs at most; a benchmark that is settled after 6 or 12 is not measured further."""
    tolerance: Annotated[
        float | None,
        arg(
            metavar="T",
            help_behavior_hint="(default: 0.05; 0.1 of rates, starts, commands, short kernels)",
        ),
    ] = None
    """A slow-down by up to this part is not a finding."""
    command: Annotated[str | None, arg(metavar="CMD", help_behavior_hint="")] = None
    """Gate this command of the repository that we stand in, in place of fastppo's benchmarks."""
    metric: Annotated[str | None, arg(metavar="NAME[,NAME]", help_behavior_hint="")] = None
    """With --command: the numbers to gate; it prints JSON objects, one per line, that have them."""
    better: Literal["higher", "lower"] = "higher"
    """Of the metrics: rates are higher where they are better, times lower."""
    prepare: Annotated[str | None, arg(metavar="CMD", help_behavior_hint="")] = None
    """With --command: run once in each tree before, untimed; it installs or builds."""

    renamed: ClassVar[dict[str, str]] = {"--pairs": "--rounds"}

    def chooses(self, name: str) -> bool:
        """Whether a benchmark is asked for."""
        return matches(name, self.only)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of `metric`."""
        return tuple(name.strip() for name in (self.metric or "").split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class GateArgs(Outputs, GateOptions):
    """Whether HEAD is slower than BASE: pairs of fresh processes, a rule of known error rates."""

    base: Annotated[str, Positional, arg(metavar="BASE")]
    """Revision to compare with; HEAD is compared with the merge base of the two."""
    head: Annotated[
        str, Positional, arg(metavar="[HEAD]", help_behavior_hint="(default: HEAD)")
    ] = "HEAD"
    """Revision that is judged."""
    worktree: bool = False
    """Judge the files as they are, uncommitted ones too, in place of HEAD."""
    strict: bool = False
    """Exit with 5 where something stays inconclusive."""
    learning: bool = False
    """Train CartPole and Pendulum on both sides, too: who learns less fails (minutes)."""
    seeds: Annotated[int, arg(metavar="N")] = 10
    """With --learning: of each task and side; as many new ones where something is suspected."""
    accept: Annotated[str, arg(metavar="PATTERN", help_behavior_hint="(default: none)")] = ""
    """Regressions that are meant: they are shown, and fail nothing; several with commas."""
    screen: bool = False
    """Take one run; what it suspects stays a suspect, for another machine to confirm."""
    confirm: Source = None
    """Take the second run: of what was suspected in this file of --screen --json."""
    github: bool = False
    """Print findings as annotations, and append the report to the job's summary."""


@dataclass(frozen=True, kw_only=True)
class SelfTestArgs(GateOptions):
    """HEAD against itself: how often this machine cries wolf, and what it can see at all."""

    gates: Annotated[int, arg(metavar="N")] = 1
    """Whole gates; every one is kept, and the table is over all that this machine ever ran."""
    md: Output = None
    """Write the table here, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateArgs(SimulationArgs):
    """How often the gate is wrong, by its own rule on simulated machines."""

    rounds: Annotated[int, arg(metavar="N")] = 20
    """Pairs of a run."""
    tolerance: Annotated[float, arg(metavar="T")] = 0.05
    """Of the gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordArgs:
    """Result files into a history: a folder with a file per machine, a line per result."""

    files: Annotated[tuple[Path, ...], Positional, Role.SOURCE, arg(metavar="FILE")]
    """From any command with --json, such as bench train or bench kernels."""
    history: Annotated[Path, Role.FOLDER, arg(metavar="DIR")]
    """Folder of the history."""


@dataclass(frozen=True, kw_only=True)
class HistoryArgs(Outputs):
    """Where the series of a history change, and by how much."""

    folder: Annotated[Path, Positional, Role.SOURCE, arg(metavar="DIR")]
    """From gate record."""
    alpha: Annotated[float, arg(metavar="P")] = 0.01
    """Probability of a change where there is none, by permutation, for each that is said."""
    otava: Folder = None
    """Write the CSV and configuration that Apache Otava reads here."""
    strict: bool = False
    """Exit with 1 where the last change of a series is for the worse."""
