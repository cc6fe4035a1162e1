"""Arguments in groups for `--help`: tyro makes a group of every dataclass within a dataclass.

A command's arguments stay one flat dataclass. Here its fields are dealt to dataclasses made for
the purpose, and what was typed is put together again. The flat one has two class variables:
`groups`, each with the fields that one of its parts begins at, and `hidden`, the fields that the
command has no use for.
"""

import ast
import inspect
import textwrap
from dataclasses import field, fields, make_dataclass, replace
from functools import cache
from typing import Annotated, Any, TypeVar

import tyro

from fastppo import field_types

Arguments = TypeVar("Arguments")


def nested(kind: Any, default: Any) -> tuple[type, Any]:
    """A dataclass of dataclasses with the fields of `kind`, and its default."""
    parts: dict[str, list[Any]] = {group: [] for group in kind.groups}
    types, docs = field_types.annotated(kind), documented(kind)
    for name, group in _groups_of(kind).items():
        typed: Any = Annotated[types[name], tyro.conf.arg(help=docs.get(name, ""))]
        one = (name, typed, field(default=getattr(default, name), kw_only=True))
        parts.setdefault(group, []).append(one)
    whole: list[Any] = []
    for group, members in filter(lambda part: part[1], parts.items()):
        part: Any = make_dataclass(group, members, frozen=True)
        flags: Any = Annotated[part, tyro.conf.OmitArgPrefixes]
        whole.append((group, flags, field(default=part(), kw_only=True)))
    outer = make_dataclass(kind.__name__, whole, frozen=True)
    outer.__doc__ = kind.__doc__
    return outer, outer()


def flat(default: Arguments, typed: Any) -> Arguments:
    """What was typed, of a `nested` dataclass, over the flat default."""
    values = {
        one.name: getattr(getattr(typed, part.name), one.name)
        for part in fields(typed)
        for one in fields(getattr(typed, part.name))
    }
    return replace(default, **values)  # type: ignore[type-var]


def _groups_of(kind: Any) -> dict[str, str]:
    """The group of every field that may be typed, in the order of the fields."""
    first = {name: group for group, names in kind.groups.items() for name in names}
    group, found = "options", {}
    for one in fields(kind):
        group = first.get(one.name, group)
        if one.name not in kind.hidden:
            found[one.name] = group
    return found


@cache
def documented(kind: type) -> dict[str, str]:
    """The text behind each field of a dataclass, in its source and those of its bases."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for before, after in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[before.target.id] = inspect.cleandoc(str(after.value.value))
    return found
