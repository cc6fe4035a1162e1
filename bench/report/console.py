"""Consoles of the commands: at most 80 columns, plain text where it is not a terminal."""

from rich.console import Console

from fastppo.console import PlainConsole

WIDTH = 80


def make_console() -> Console:
    """Standard output, cut to WIDTH columns."""
    console = PlainConsole()
    console.width = min(WIDTH, console.width)
    return console
