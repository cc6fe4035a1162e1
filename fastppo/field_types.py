"""Whether a value has the type its dataclass field declares.

The command line gives the right types; a config.json that was edited, or a Python caller, may not.
"""

from dataclasses import fields
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def of(kind: type) -> dict[str, Any]:
    """The declared type of each field of a dataclass."""
    return _of(kind)


@cache
def _of(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name in _names(kind)}


@cache
def annotated(kind: type) -> dict[str, Any]:
    """The declared type of each field of a dataclass, with what its annotation adds."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if name in _names(kind)}


def _names(kind: Any) -> frozenset[str]:
    return frozenset(one.name for one in fields(kind))


def fits(value: object, kind: Any) -> bool:
    """Whether `value` is of a declared type: a class, Literal, tuple, or a union of them."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(fits(item, get_args(kind)[0]) for item in value)
    if choices := get_args(kind):
        return any(fits(value, choice) for choice in choices)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def describe(kind: Any) -> str:
    """A declared type as a user would say it."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return f"a tuple of {get_args(kind)[0].__name__}"
    return " or ".join(
        "None" if choice is NoneType else choice.__name__ for choice in get_args(kind) or (kind,)
    )
