"""Any text as markdown that GitHub shows as that text. Standard library only."""

import re

from fastppo.text import printable

# What means something to markdown or HTML; underscores within a word mean nothing.
_MARKUP = re.compile(r"[\\`*{}|~$#]|](?=[(\[:])|(?<!\w)_|_(?!\w)")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "://": "&#58;//"}
# What begins a list or a task at the start of a line.
_BLOCK = re.compile(r"^(\d{1,9})(?=[.)]\s)|^(?=[-+]\s|\[[ xX]\])")
# What GitHub makes a link, a person or a picture of, after markdown: an empty comment splits it.
_LINKS = re.compile(
    r"@|(?<!&)#(?=\d)|\bwww(?=\.)|\bGH-(?=\d)|:(?=[\w+-]+:)"
    r"|\b(?=[0-9a-f]{7,40}\b)\d*[a-f]\w*",
    re.IGNORECASE,
)
_SPLIT = "<!-- -->"
_SHORT = 6
"""Digits of a revision that GitHub makes no link of."""


def escape(text: str) -> str:
    """Text that stays text, also within a table: no markup, no link, nobody called by name."""
    text = _MARKUP.sub(r"\\\g<0>", _BLOCK.sub("\\1\0", printable(text).strip()))
    for mark, harmless in _HTML.items():
        text = text.replace(mark, harmless)
    return _LINKS.sub(_split, text).replace("\0", "\\")


def _split(found: re.Match[str]) -> str:
    mark = found[0]
    pieces = [mark[i : i + _SHORT] for i in range(0, len(mark), _SHORT)]
    return _SPLIT.join(pieces if len(pieces) > 1 else [mark, ""])


def code(text: str) -> str:
    """A code span, whatever backticks and bars the text holds."""
    text = printable(text).strip()
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"
