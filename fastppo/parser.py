"""The parser of commands that argparse reads."""

import argparse
from typing import NoReturn

from fastppo.text import printable


class Parser(argparse.ArgumentParser):
    """Shows an argument that it refuses as text, whatever it holds; so do its subcommands."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and one line, and ends the command with 2."""
        super().error(printable(message))
