"""Paths that a user names: what each is for, and one check of all of them before any work.

A field of the dataclass of arguments says it by its annotation: a `Role`.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from fastppo import files
from fastppo.errors import MachineError, UserError, why

Named = tuple[str, Path]
"""A path, and the option that names it."""


class Role(Enum):
    """What a path is to the command."""

    OUTPUT = "a file that it writes"
    FOLDER = "a folder that it writes into; it is made if need be"
    SOURCE = "a file or folder that it reads"


Output = Annotated[Path | None, Role.OUTPUT, tyro.conf.arg(metavar="F", help_behavior_hint="")]
Source = Annotated[Path | None, Role.SOURCE, tyro.conf.arg(metavar="F", help_behavior_hint="")]
Folder = Annotated[Path | None, Role.FOLDER, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says where the machine, and not the request, is at fault."""


def check(typed: Any) -> None:
    """Of a dataclass of arguments; called before any work.

    Raises:
        UserError: an output cannot be written, is an input, or is named twice.
    """
    named = list(_named(typed))
    outputs, folders, sources = ([n for r, n in named if r is role] for role in Role)
    check_apart(outputs + folders, [path for _, path in sources])
    for option, path in outputs:
        check_output(path, option)
    for option, path in folders:
        check_folder(path, option)


def outputs(typed: Any) -> list[Path]:
    """The files and folders that a dataclass of arguments has the command write."""
    return [path for role, (_, path) in _named(typed) if role is not Role.SOURCE]


def _named(typed: Any) -> Iterator[tuple[Role, Named]]:
    """Every path of the arguments, with its role."""
    hints = get_type_hints(type(typed), include_extras=True)
    for field in fields(typed):
        value = getattr(typed, field.name)
        kinds = getattr(hints[field.name], "__metadata__", ())
        option = f"--{field.name.replace('_', '-')}"
        if tyro.conf.Positional in kinds:
            option = next(k.metavar for k in kinds if hasattr(k, "metavar"))
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        for role in (kind for kind in kinds if isinstance(kind, Role)):
            yield from ((role, (option, Path(path))) for path in values)


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
            raise UserError(f"{option}: {path.parent} is not a folder; make it first")
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
