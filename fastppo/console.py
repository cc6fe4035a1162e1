"""The only maker of rich consoles: what is printed there is shown, never interpreted."""

from typing import Any

from rich.console import Console
from rich.text import Text

from fastppo.text import printable


class PlainConsole(Console):
    """Shows every string as it is: no markup, no emoji, and nothing that steers a terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The string as rich shows it; cells of tables come by here too."""
        return super().render_str(printable(text), **options)
