"""How reports write numbers, names and times; every one with its unit."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

from fastppo.bench.results.intervals import Interval

MISSING = "-"
NOT_REACHED = "not reached"


def count(value: float | None) -> str:
    """A rate or a count, with thousands separators: 1,234; 0.00123 keeps three digits."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if 0 < size < 1e-3 or size >= 1e12:
        return f"{value:.3g}"
    if size < 10:
        return f"{value:.3g}"
    return f"{value:,.1f}" if size < 100 else f"{value:,.0f}"


def short(value: float, _: Any = None) -> str:
    """For an axis: 1k, 2.5M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def ratio(value: float | None) -> str:
    """1.83; 12.4; 109; 0.0123."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{3 if 0 < abs(value) < 0.1 else digits}f}"


def interval(low: float | None, high: float | None, write: Any = ratio) -> str:
    """[1.80, 1.86]; empty where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"[{write(low)}, {write(high)}]"


def ends(found: Interval | None, write: Any = ratio) -> str:
    """The ends of an interval, a range in words: [1.80, 1.86] or 1.80 to 1.86."""
    if found is None:
        return ""
    text = interval(found.low, found.high, write)
    return text[1:-1].replace(", ", " to ") if found.label.startswith("range") else text


def with_ends(found: Interval | None, write: Any = ratio) -> str:
    """1.83 [1.80, 1.86]."""
    return f"{write(found.value)} {ends(found, write)}".rstrip() if found else MISSING


def until(found: Interval | None, write: Any, *, narrow: bool = False) -> str:
    """A median time to a threshold: 43,000 [40,000, 51,000]; infinity is "not reached"."""
    if found is None:
        return MISSING
    if math.isinf(found.value):
        return NOT_REACHED
    if narrow:
        return str(write(found.value))
    return with_ends(found, lambda x: NOT_REACHED if math.isinf(x) else write(x))


ABOVE = "!: above its ceiling, which was measured too low then; measure again."


def of_ceiling(value: float | None) -> str:
    """A share of what cannot be exceeded, marked where it is."""
    return f"{share(value)}{'!' if value is not None and value > 1.0 else ''}"


def share(value: float | None) -> str:
    """12%; 0.4%."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.001:
        return "<0.1%"
    return f"{value:.1%}" if 0 < value < 0.01 else f"{value:.0%}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it: 12.3 us, 4.56 ms, 78 s, 3.2 min."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0 s"
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if abs(value) < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:,.1f} min"


def mebibytes(value: float | None) -> str:
    """12 MiB."""
    return MISSING if not value else f"{count(value / 2**20)} MiB"


def threads(number: int) -> str:
    """1 thread; 2 threads."""
    return "1 thread" if number == 1 else f"{number} threads"


def amount(value: float | None, unit: str) -> str:
    """A value of a result in its own unit: seconds get a prefix, the rest is counted."""
    return seconds(value) if unit == "s" else count(value)


def command(words: Sequence[str] | str) -> str:
    """The command line as a user would type it, whatever the path of the program."""
    if isinstance(words, str):
        return words
    if not words:
        return MISSING
    head, *rest = words
    *folders, name = head.split("/")
    package = "fastppo.bench" if folders[-1:] == ["bench"] else "fastppo"
    start = ["python", "-m", package] if name == "__main__.py" else [name]
    return shlex.join([*start, *rest])
