"""What the lines of an implementation may hold: the parent's side of `fastppo.bench.contract`.

LINES is the one table of it. Every line is checked against it, and docs/implementations.md holds it
(tests/bench/contract/test_lines.py compares the two).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastppo.bench.contract import CEILINGS, PHASES, WORK_FIELDS
from fastppo.files import Unreadable, parse_json

MAX_LINE = 2**20
"""Bytes of a line."""
MAX_NUMBER = 2**53
"""Whole numbers up to here are exact in every reader of JSON, and no sum of them overflows."""
MAX_TEXT = 10_000
"""Characters."""
MAX_DEPTH = 8
"""Objects and lists in one another, in `info`."""
MAX_THREADS = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field holds."""

    must: str
    """In words, after "must be"."""
    holds: Callable[[Any], bool]
    optional: bool = False


def number(value: object, least: float = -MAX_NUMBER) -> bool:
    """A finite number; true and false are none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and least <= value <= MAX_NUMBER  # type: ignore[operator]


def whole(value: object, least: int = 0, most: int = MAX_NUMBER) -> bool:
    """A whole number, written as one."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _texts(value: object) -> bool:
    return isinstance(value, list) and len(value) <= 100 and all(map(_text, value))


def _phases(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= set(PHASES)
        and all(number(seconds, 0.0) for seconds in value.values())
    )


def _rates(value: object) -> bool:
    return isinstance(value, dict) and all(
        key.isascii() and key.isdigit() and len(key) <= 4 and number(rate, 0.0)
        for key, rate in value.items()
    )


def _plain(value: object, depth: int = 0) -> bool:
    """Text, numbers, and what is made of them, within bounds."""
    if isinstance(value, dict | list):
        inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return depth < MAX_DEPTH and all(_plain(item, depth + 1) for item in inside)
    return value is None or isinstance(value, bool) or number(value) or _text(value)


_COUNT = Rule("a whole number, 0 or above", whole)
_SOME = Rule("a whole number above 0", lambda value: whole(value, 1))
_TEXT = Rule(f"a text of at most {MAX_TEXT:,} characters", _text)
_THREADS = Rule(f"a whole number from 1 to {MAX_THREADS}", lambda v: whole(v, 1, MAX_THREADS))
_FLAG = Rule("true or false", lambda value: isinstance(value, bool))


def _perhaps(rule: Rule, *, null: bool = False) -> Rule:
    if null:
        return Rule(f"{rule.must}, or null", lambda v: v is None or rule.holds(v), optional=True)
    return Rule(rule.must, rule.holds, optional=True)


WORK: dict[str, Rule] = dict.fromkeys(WORK_FIELDS, _COUNT) | {
    "rows_per_update": _SOME,
    "minibatch_rows": _SOME,
    "epochs": _SOME,
    "precision": _TEXT,
    "trains_on_reset_rows": _FLAG,
    "wrappers": Rule("a list of at most 100 names", _texts),
    "network": _TEXT,
}
INFO: dict[str, Rule] = {
    "version": _perhaps(_TEXT, null=True),
    "notes": _perhaps(_TEXT, null=True),
    "env_threads": _perhaps(_THREADS, null=True),
    "torch_threads": _perhaps(_THREADS, null=True),
    "compile_s": _perhaps(Rule("a number of seconds, 0 or above", lambda v: number(v, 0.0))),
}
"""Read by us. Further ones may hold anything that is plain."""
_OBJECT = Rule("an object", lambda value: isinstance(value, dict))
LINES: dict[str, dict[str, Rule]] = {
    "ready": {
        "work": _OBJECT,
        "info": Rule(
            f"an object, at most {MAX_DEPTH} deep, whose texts and numbers are within bounds",
            lambda value: isinstance(value, dict) and _plain(value),
            optional=True,
        ),
        "tunes": _perhaps(_FLAG),
    },
    "update": {
        "env_steps": _SOME,
        "episodes": _perhaps(_COUNT),
        "return_mean": _perhaps(Rule("a finite number", number), null=True),
        "phases": _perhaps(
            Rule(f"an object of seconds, 0 or above, by {' '.join(PHASES)}", _phases), null=True
        ),
        "ceiling": _perhaps(Rule(f"one of {' '.join(CEILINGS)}", CEILINGS.__contains__)),
        "device_memory_bytes": _perhaps(_COUNT, null=True),
    },
    "tuned": {
        "torch_threads": _THREADS,
        "rates": Rule("an object of env steps/s by number of threads", _rates),
    },
    "error": {"message": Rule("a text", lambda value: isinstance(value, str))},
}


class Conversation:
    """The lines of one process, in order: `ready` once, then updates, `tuned` once if promised."""

    def __init__(self) -> None:
        self._is_ready = False
        self._tunes = False

    def read(self, line: bytes) -> tuple[str, dict[str, Any]]:
        """The event of a line, and its fields that LINES knows; others are ignored.

        Raises:
            Unreadable: it is none of the contract's, or out of order; names the field.
        """
        try:
            values = parse_json(line)
        except Unreadable as error:
            raise Unreadable(f"no JSON object ({error})") from None
        if not isinstance(values, dict):
            raise Unreadable("no JSON object")
        kind = values.get("event")
        if not isinstance(kind, str) or kind not in LINES:
            raise Unreadable(f"event is none of {', '.join(LINES)}")
        fields = _checked(values, LINES[kind])
        if kind == "ready":
            fields["work"] = _checked(fields["work"], WORK, "work.")
            _checked(fields.get("info", {}), INFO, "info.")
        self._follow(kind, fields)
        return kind, fields

    def _follow(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "ready":
            if self._is_ready:
                raise Unreadable("ready was said before")
            self._is_ready, self._tunes = True, fields.get("tunes", False)
        elif kind in ("update", "tuned") and not self._is_ready:
            raise Unreadable(f"{kind} comes before ready")
        elif kind == "tuned":
            if not self._tunes:
                raise Unreadable("tuned was not promised by ready, or said before")
            self._tunes = False


def _checked(
    values: Mapping[str, Any], rules: Mapping[str, Rule], where: str = ""
) -> dict[str, Any]:
    found = {}
    for name, rule in rules.items():
        if name not in values:
            if rule.optional:
                continue
            raise Unreadable(f"{where}{name} is missing; it must be {rule.must}")
        if not rule.holds(values[name]):
            raise Unreadable(f"{where}{name} must be {rule.must}")
        found[name] = values[name]
    return found
