"""A spinner on a terminal while something takes longer than a glance; elsewhere nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows what is going on, on standard error, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.status import Status

    from fastppo.console import PlainConsole

    with Status(f"{what} ...", console=PlainConsole(stderr=True)):
        yield
