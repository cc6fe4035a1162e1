"""Paths that a user names: what each is for, and one check of all of them before any work.

An option says what its path is by `type=source`, `type=output` or `type=folder` (argparse), or by
`Annotated[Path, source]` (a dataclass that tyro reads).
"""

import argparse
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from fastppo import files
from fastppo.errors import MachineError, UserError, why

Named = tuple[str, Path]
"""A path, and the option that names it."""


def source(text: str) -> Path:
    """A file or folder that the command reads."""
    return Path(text)


def output(text: str) -> Path:
    """A file that the command writes."""
    return Path(text)


def folder(text: str) -> Path:
    """A folder that the command writes into; it is made if need be."""
    return Path(text)


Role = Callable[[str], Path]
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says where the machine, and not the request, is at fault."""
WRITTEN: tuple[Role, ...] = (output, folder)


def check(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Of the options of a parser; called before any work.

    Raises:
        UserError: an output cannot be written, is an input, or is named twice.
    """
    told = [
        (action.type, (action.option_strings or [str(action.metavar or action.dest)])[-1], value)
        for action in actions(parser)
        if (value := getattr(parsed, action.dest, None)) is not None
    ]
    _check(told)


def check_fields(typed: Any) -> None:
    """Of a dataclass that tyro filled; called before any work.

    Raises:
        UserError: as `check`.
    """
    hints = get_type_hints(type(typed), include_extras=True)
    told = [
        (role, f"--{field.name.replace('_', '-')}", value)
        for field in fields(typed)
        if (value := getattr(typed, field.name)) is not None
        for role in getattr(hints[field.name], "__metadata__", ())
    ]
    _check(told)


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option and argument of a parser, those of its subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from actions(below)
        else:
            yield action


def check_output(path: Path, option: str) -> None:
    """Refuses a file that could not be written.

    Raises:
        UserError, MachineError: names the option, the path and the reason.
    """
    try:
        if files.is_stream(path):
            _need(path, os.W_OK)
            return
        if path.is_dir():
            raise UserError(f"{option}: {path} is a folder; name a file")
        if not path.parent.is_dir():
            raise UserError(f"{option}: {path.parent} is no folder; make it first")
        if path.exists() and not path.is_symlink():
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(errno.EINVAL, "neither a file nor a pipe")
            _need(path, os.W_OK)
        # asking for permission is not enough: /proc and a full disk refuse all the same
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _cannot_write(option, path, error, "file") from None


def check_folder(path: Path, option: str, names: Iterable[str] = ()) -> None:
    """Refuses a folder that could not be made or written into; makes nothing.

    Args:
        names: of the files that will be written there, where they are known.

    Raises:
        UserError, MachineError: names the option, the path and the reason.
    """
    try:
        nearest = path.absolute()
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        nearest.stat()  # tells of a link to nothing, or of itself
        if not nearest.is_dir():
            raise UserError(f"{option}: {nearest} is a file; name a folder")
        path.exists()  # tells of a name that is too long
        with tempfile.TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        raise _cannot_write(option, path, error, "folder") from None
    if path.is_dir():
        for name in names:
            check_output(path / name, option)


def check_apart(outputs: Iterable[Named], inputs: Iterable[Path]) -> None:
    """Refuses an output that is also an input, or that another option writes too.

    Whatever its spelling: a file is the same by its inode, links followed.

    Raises:
        UserError: names the option and the path.
    """
    inputs, taken = list(inputs), list[Named]()
    for option, path in outputs:
        if _is_pipe(path):
            continue
        if any(_same(path, other) for other in inputs):
            raise UserError(f"{option}: {path} is an input; name another file")
        for name, other in taken:
            through = files.is_stream(path) and files.is_stream(other)
            if not through and _same(path, other):
                raise UserError(
                    f"{option}: {path} is named twice, for {name} too; give every output its own "
                    "file"
                )
        taken.append((option, path))


def _check(told: Iterable[tuple[Any, str, Any]]) -> None:
    by_role: dict[Role, list[Named]] = {role: [] for role in (source, *WRITTEN)}
    for role, option, value in told:
        if role in by_role:
            many = value if isinstance(value, list) else [value]
            by_role[role] += [(option, Path(path)) for path in many]
    check_apart(by_role[output] + by_role[folder], [path for _, path in by_role[source]])
    for option, path in by_role[output]:
        check_output(path, option)
    for option, path in by_role[folder]:
        check_folder(path, option)


def _cannot_write(option: str, path: Path, error: OSError, what: str) -> Exception:
    """A mistake in the request, unless the path is right and the machine refuses."""
    kind = MachineError if error.errno in REFUSED else UserError
    remedy = "free space, make it writable, or " if error.errno in REFUSED else ""
    return kind(f"{option}: cannot write {path} ({why(error)}); {remedy}name another {what}")


def _need(path: Path, mode: int) -> None:
    if not os.access(path, mode):
        raise PermissionError(errno.EACCES, "permission denied")


def _is_pipe(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # not there yet
        return os.path.realpath(one) == os.path.realpath(other)
