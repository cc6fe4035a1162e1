"""How a command line becomes a call: a row of the table, a dataclass of arguments, a function.

Paths, standard output and signals are handled here, once for every command. What a command runs is
loaded after its arguments were read, so that help and mistakes take no time.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastppo import arguments, paths, settings, signals, streams
from fastppo.config import RunOptions
from fastppo.waiting import waiting


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table of commands."""

    name: str
    """As it is typed: `train`, `bench train`."""
    takes: str
    """What follows the name in the overview."""
    about: str
    """What it is for, in the overview."""
    args: str
    """`module:Class` of its arguments; the module loads nothing that takes time."""
    run: str
    """`module:function` that takes the arguments and returns the exit code."""
    prints: bool = False
    """Whether what it prints is all that it leaves, unless the arguments name a file."""

    def parse(self, words: Sequence[str]) -> Any:
        """The arguments, from the words behind the name.

        Raises:
            UserError: one line with the argument, the value and the remedy.
            SystemExit: after --help.
        """
        kind, program = load(self.args), f"fastppo {self.name}"
        if issubclass(kind, RunOptions):
            return settings.resolve(kind, words, program)
        return arguments.read(kind, words, program)

    def serve(self, words: Sequence[str]) -> int:
        """Parses the words and runs; returns the exit code.

        Raises:
            UserError: an argument is off; nothing was written yet.
            SystemExit: after --help.
        """
        typed = self.parse(words)
        paths.check(typed)
        with waiting("loading"):
            run = load(self.run)
        if self.prints and not paths.outputs(typed):
            streams.needed()
        else:
            streams.mirror()
        # unwinding stops the children, and keeps what was measured
        with signals.unwinding():
            return int(run(typed))


def load(reference: str) -> Any:
    """What `module:name` names."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)
