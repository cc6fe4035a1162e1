"""Other people's text, from children and files, made safe to show."""

import os
import shlex
import shutil
import sys
from typing import Any


def printable(value: Any) -> Any:
    r"""The value with every character escaped that could steer a terminal or break XML.

    White space becomes a blank, so that no newline forges a line of ours; escape sequences,
    marks that turn the writing direction, and lone surrogates become `\x1b`, `\u202e`, `\ud800`.

    Args:
        value: text, or plain values as JSON has them; dictionary keys are escaped too.
    """
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_shown, value))
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [printable(item) for item in value]
    return value


def print_out(text: str) -> None:
    """Prints one line on standard output, whatever the text holds."""
    print(printable(text), flush=True)


def print_err(text: str) -> None:
    """Prints one line on standard error; standard output is for results."""
    print(printable(text), file=sys.stderr, flush=True)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def called() -> str:
    """This program as it was called, so that a command that we name works as it is pasted."""
    typed = sys.argv[0]
    name = os.path.basename(typed)
    if name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m fastppo"
    found = shutil.which("fastppo")
    if name != "fastppo" or (
        found is not None and os.path.realpath(typed) == os.path.realpath(found)
    ):
        return "fastppo"
    return shlex.quote(typed)
