"""The command of any project as the thing that is gated: it prints numbers, one is the metric."""

import json
import math
import os
import shlex
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from fastppo.bench.gate.own import environment
from fastppo.bench.gate.revisions import GateSide
from fastppo.bench.gate.subject import PREFIX, Better, Costs, Failures
from fastppo.bench.launch.output import Output, TooLong
from fastppo.bench.launch.process import ending
from fastppo.children import Child
from fastppo.errors import MachineError, UserError, why
from fastppo.text import print_err

LONGEST_LINE = 2**20
"""Bytes."""


class ProjectCommand:
    """A command that prints a JSON object per line: every number under the metric's name counts.

    Of one launch the median counts where higher is better (rates), else the least (times).

    Args:
        command: as in a shell, without its operators; run in `folder` of each tree.
        metrics: names of numbers that it prints.
        prepare: a command that is run once in each tree, untimed: it installs or builds.
        timeout_s: longest duration of one launch.

    Raises:
        UserError: the command is no command.
    """

    def __init__(
        self,
        pair: tuple[GateSide, GateSide],
        command: str,
        metrics: Sequence[str],
        *,
        better: Better = "higher",
        prepare: str | None = None,
        folder: Path = Path(),
        timeout_s: float = 600.0,
        again: bool = False,
    ) -> None:
        self.missing: dict[str, str] = {}
        self._pair = pair
        self._words = split(command, "--command")
        self._prepare = split(prepare, "--prepare") if prepare else []
        self._metrics = metrics
        self.better = better
        self._folder = folder
        self._timeout_s = timeout_s
        self._again = again

    def names(self) -> list[str]:
        """A benchmark per metric."""
        return [PREFIX + metric for metric in self._metrics]

    def differs(self, name: str) -> bool:
        """Whether a file of the two trees differs: what the command reads is not known."""
        del name
        return self._again or self._files_differ

    @cached_property
    def _files_differ(self) -> bool:
        base, head = (_content(side.tree) for side in self._pair)
        return base != head

    def tolerance(self, name: str, cost: float) -> float:
        """Of a whole program."""
        del name, cost
        return 0.10

    def warm(self, names: Sequence[str]) -> Failures:
        """Prepares both sides, and runs the command once on each."""
        for side in self._pair:
            if self._prepare:
                print_err(f"{side.name}: {shlex.join(self._prepare)}")
                self._run(side, self._prepare, 0, what="--prepare")
        return self.costs(self._pair, names, 0)[1]

    def costs(
        self, order: Sequence[GateSide], names: Iterable[str], seed: int
    ) -> tuple[Costs, Failures]:
        """What each side printed; a rate as seconds of one."""
        costs: Costs = {side.name: {} for side in order}
        failures: Failures = {}
        for side in order:
            rows = self._run(side, self._words, seed, what="--command")
            for name in names:
                values = list(_values(rows, name.removeprefix(PREFIX)))
                if not values:
                    failures[name, side.name] = _never(name.removeprefix(PREFIX), rows)
                elif min(values) <= 0:
                    failures[name, side.name] = f"it printed {min(values):g}, which is not above 0"
                else:
                    rate = self.better == "higher"
                    costs[side.name][name] = 1.0 / median(values) if rate else min(values)
        return costs, failures

    def counts(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """There are none."""
        del names
        return [{}, {}]

    def _run(
        self, side: GateSide, words: Sequence[str], seed: int, *, what: str
    ) -> list[dict[str, Any]]:
        """The JSON objects that a command prints in a tree.

        Raises:
            MachineError: it cannot be started, fails, or does not end.
        """
        folder = side.tree / self._folder
        if not folder.is_dir():
            raise MachineError(f"{what}: {side.name} has no folder {self._folder}")
        env = environment(side, seed) | {"PWD": str(folder)}
        shell = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(folder), *words]
        try:
            process = Child(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        except OSError as error:
            raise MachineError(f"{what}: cannot start ({why(error)})") from None
        with process:
            try:
                return list(self._rows(process))
            except TimeoutError:
                reason = f"no end within {self._timeout_s:.0f} s"
            except TooLong:
                reason = "a line without an end"
            except _Failed as failed:
                reason = str(failed)
        raise MachineError(f"{what}: {reason} on {side.name}")

    def _rows(self, process: Child) -> Iterator[dict[str, Any]]:
        """The objects of a launch, until it ends."""
        output = Output(process, LONGEST_LINE)
        deadline = time.monotonic() + self._timeout_s
        while (line := output.line(max(0.0, deadline - time.monotonic()))) is not None:
            yield from _objects(line)
        yield from _objects(output.rest)
        code = process.wait(max(0.1, deadline - time.monotonic()))
        if code is None:
            raise TimeoutError
        if code != 0:
            raise _Failed(f"{ending(code)} ({output.last_words()})")


class _Failed(Exception):
    """The command failed, and what it said."""


def _objects(line: bytes) -> Iterator[dict[str, Any]]:
    with suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict):
            yield row


def split(command: str, option: str) -> list[str]:
    """The words of a command.

    Raises:
        UserError: there are none, or a quote is open.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{option}: {command!r}: {error}") from None
    if not words:
        raise UserError(f"{option}: {command!r} is no command")
    return words


def _values(rows: Sequence[Mapping[str, Any]], metric: str) -> Iterable[float]:
    for row in rows:
        value = row.get(metric)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield float(value)


def _never(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    known = list(dict.fromkeys(key for row in rows for key in row))
    others = f"it printed {', '.join(known[:8])}" if known else "it printed no JSON object at all"
    return f"the command never printed a number {metric!r}: {others}"


def _content(tree: Path) -> dict[str, bytes]:
    """Every file of a tree by its name."""
    return {
        str(path.relative_to(tree)): os.readlink(path).encode()
        if path.is_symlink()
        else path.read_bytes()
        for path in tree.rglob("*")
        if path.is_symlink() or path.is_file()
    }
