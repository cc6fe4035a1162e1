"""What was typed behind a command, as its dataclass of arguments; a mistake is one line."""

import contextlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import tyro

from fastppo import argument_groups, foreign
from fastppo.errors import UserError

HELP = ("-h", "--help")
Arguments = TypeVar("Arguments")


def read(
    kind: type[Arguments],
    words: Sequence[str],
    program: str,
    *,
    default: Arguments | None = None,
    both_flags: bool = False,
) -> Arguments:
    """Parses the words.

    Args:
        kind: a dataclass that tyro reads. A class variable `renamed` maps old flags to new ones.
        program: the words before the arguments, for help and errors.
        default: holds the values of what was not typed; None takes the dataclass's own.
        both_flags: whether a boolean has --flag and --no-flag; else the one that is not default.

    Raises:
        UserError: one line with the argument, the value and the remedy.
        SystemExit: after --help.
    """
    assert is_dataclass(kind)
    grouped = hasattr(kind, "groups")
    flags = {f"--{one.name.replace('_', '-')}" for one in fields(kind)} - {"--env-id"}
    for word in words:
        name = word.partition("=")[0]
        now = getattr(kind, "renamed", {}).get(name)
        if now is not None:
            raise UserError(f"{name}: is called {now} now")
        answer = foreign.flag_answer(name) if grouped and name.startswith("--") else None
        if answer is not None and name not in flags:
            raise UserError(f"{name}: here it is {answer}")
    options: dict[str, Any] = {} if default is None else {"default": default}
    parsed: Any = kind
    if grouped:
        flat_default: Any = default or kind()
        parsed, options["default"] = argument_groups.nested(kind, flat_default)
    config = () if both_flags else (tyro.conf.FlagCreatePairsOff,)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            typed: Any = tyro.cli(parsed, args=list(words), prog=program, config=config, **options)
    except SystemExit as left:
        if not left.code:
            raise
        raise UserError(_reason(said.getvalue(), program)) from None
    result: Arguments = argument_groups.flat(flat_default, typed) if grouped else typed
    return result


def _reason(box: str, program: str) -> str:
    """tyro's box of several lines as one."""
    _title, *lines = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines() or [""]
    rows = (line.strip("│╭╮╰╯ ") for line in lines)
    texts = [" ".join(part) for part in _split(rows) if part]
    said = texts[0] if texts else " ".join(box.split())
    for pattern, better in _BETTER:
        said = re.sub(pattern, better, said, flags=re.DOTALL)
    near = [name for text in texts if text.startswith("Perhaps") for name in _flags(text)]
    perhaps = f"perhaps {' or '.join(near)}; " if near else ""
    return f"{said}; {perhaps}{program} --help explains"


def _split(rows: Iterable[str]) -> list[list[str]]:
    """The rows between the rules."""
    parts: list[list[str]] = [[]]
    for row in filter(None, rows):
        if set(row) <= {"─", "-"}:
            parts.append([])
        else:
            parts[-1].append(row)
    return parts


_BETTER = (
    (r"^Unrecognized options: (-[^,]*).*$", r"\1: unknown option"),
    (r"^Unrecognized options: (.*)$", r"\1: more than the command takes"),
    (r"^Error parsing (\S+): invalid literal for int.*: ('.*')$", r"\1: \2 must be a whole number"),
    (r"^Error parsing (\S+): could not convert .*: ('.*')$", r"\1: \2 must be a number"),
    (r"^Error parsing (\S+): ", r"\1: "),
    (
        r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*?)\)\s*\.$",
        r"\2: \1 is not one of \3",
    ),
    (r"^Missing value for argument '(\S+)'\..*$", r"\1: missing its value"),
    (r"^Missing from .*?: (\S+)(?: [A-Z_]+(?= ))? (.*?)\.? \(required\).*$", r"\1: missing (\2)"),
)
"""What tyro says, and the same as field, value and remedy."""


def _flags(text: str) -> list[str]:
    found = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)
    return list(dict.fromkeys(found))
