"""Consoles and tables of the commands: at most 80 columns, plain text where it is no terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fastppo.console import PlainConsole

WIDTH = 80


def make_console() -> Console:
    """Standard output, cut to WIDTH columns."""
    console = PlainConsole()
    console.width = min(WIDTH, console.width)
    return console


def make_table(console: Console, columns: Sequence[str], *, left: int = 1) -> Table:
    """An empty table; lines only on a terminal.

    Args:
        left: so many columns hold names, the others numbers.
    """
    framed = console.is_terminal
    table = Table(
        box=box.SIMPLE_HEAD if framed else None,
        pad_edge=False,
        padding=(0, 0 if framed else 2, 0, 0),
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    return table
