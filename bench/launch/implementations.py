"""Which program serves which name: fastppo and the reference, installed peers, a user's own."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fastppo
from fastppo.errors import UserError

BUILT_IN = ("fastppo", "fastppo-eager", "fastppo-graph", "fastppo-mlp", "reference")
PEERS = "peers"
"""In `--impl`: every peer that is installed."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Implementation:
    """A name in the tables, and the program behind it."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    """Added to ours."""
    missing: str | None = None
    """Why there is no program, for a peer that is not installed."""


def parse(texts: Sequence[str]) -> list[Implementation]:
    """The implementations that `--impl` names, in order.

    Args:
        texts: each a comma-separated list of names (fastppo, reference, a peer, `peers` for all
            that are installed) and `name=module:function`; or one `name=command line`.

    Raises:
        UserError: unknown, or given twice. A peer that is not installed raises later: the
            others can be measured.
    """
    found: list[Implementation] = []
    for text in texts:
        # a command line may hold commas of its own
        is_command = "=" in text and " " in text.partition("=")[2]
        for part in [text] if is_command else text.split(","):
            found.extend(_resolve(part.strip()))
    if not found:
        raise UserError("--impl: names nothing; try --impl fastppo,reference")
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        remedy = f"give the second one a name of its own: --impl again={twice[0]}"
        raise UserError(f"--impl: {twice[0]!r} is there twice; {remedy}")
    return found


def base_of(name: str | None, chosen: Sequence[Implementation], done: str) -> str:
    """Whom the others are compared with: as named, else the reference, else the first.

    Args:
        done: what happens to them, for the message: measured, trained.

    Raises:
        UserError: the one that was named is not among them.
    """
    names = [one.name for one in chosen]
    if name is None:
        return "reference" if "reference" in names else names[0]
    if name not in names:
        raise UserError(f"--base: {name!r} is not {done}; there are {', '.join(names)}")
    return name


def _resolve(text: str) -> list[Implementation]:
    from fastppo.bench.peers import registry

    if text == PEERS:
        return [one for name in registry.installed() for one in _resolve(name)]
    name, equals, value = text.partition("=")
    value = value.strip() if equals else name
    if not NAME.fullmatch(name):
        raise UserError(f"--impl: {name!r} is not a name; use letters, digits and _ . + -")
    if value in BUILT_IN:
        return [ours(name, value)]
    if value in registry.names():
        try:
            return [Implementation(name, registry.command(value))]
        except UserError as error:
            return [Implementation(name, [], missing=str(error))]
    if FUNCTION.fullmatch(value):
        return [ours(name, value)]
    if equals:
        return [Implementation(name, _command(name, value))]
    known = ", ".join([*BUILT_IN, *registry.names()])
    raise UserError(
        f"--impl: {name!r} is unknown; there are {known}, name=module:function, name='command line'"
    )


def ours(name: str, what: str) -> Implementation:
    """The program of ours that serves one of BUILT_IN, `ceilings`, or a module:function."""
    # -P: a queue.py in the user's folder must not stand in for the standard library's. The path
    # is for a checkout that is not installed.
    home = str(Path(fastppo.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), home]))
    command = [sys.executable, "-P", "-m", "fastppo.bench.launch.worker", what]
    return Implementation(name, command, {"PYTHONPATH": path})


def _command(name: str, text: str) -> list[str]:
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--impl: {name}={text!r} is not a command line ({error})") from None
    if not command:
        raise UserError(f"--impl: {name}= names no program; give module:function or a command line")
    if shutil.which(command[0]) is None and not Path(command[0]).is_file():
        raise UserError(f"--impl: {name}: {command[0]!r} is not a program that can be found")
    return command
