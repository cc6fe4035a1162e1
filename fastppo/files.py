"""Files as the commands read and write them: whole or not at all, and never over something else."""

import errno
import itertools
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from fastppo import signals


class Unreadable(ValueError):
    """A file is not what it should be; the text is the reason, for the middle of a sentence."""


_PART = ".fastppo-{}.part"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends, or else leaves it alone.

    It is created exclusively, under a random name in the same folder, synced and renamed, with the
    mode of the file that it replaces. A link is replaced, not followed. A pipe or a character
    device (/dev/stdout among them) is written through.

    Raises:
        OSError: the system refuses; `path` holds what it held.
    """
    if is_stream(path):
        with path.open("ab", buffering=0) as stream:
            yield stream
        return
    with signals.held():
        yield from _replacing(path)


def _replacing(path: Path) -> Iterator[IO[bytes]]:
    old = _replaced(path)
    part = path.with_name(_PART.format(secrets.token_hex(8)))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            if old is not None:
                _keep_mode(old, file.fileno())
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # Ctrl-C included
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write(path: Path, content: str | bytes) -> None:
    """Replaces a file's content, or leaves it as it was (see `replacing`).

    Raises:
        OSError: the system refuses.
    """
    # a report may quote half a surrogate pair, which UTF-8 has no bytes for
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with replacing(path) as file:
        file.write(data)


def keep_aside(path: Path, content: bytes) -> Path:
    """Writes a file next to `path`, under a name that nothing has: metrics.damaged-1.jsonl.

    Raises:
        OSError: the system refuses.
    """
    for count in itertools.count(1):
        aside = path.with_name(f"{path.stem}.damaged-{count}{path.suffix}")
        with suppress(FileExistsError):
            with aside.open("xb") as file:
                file.write(content)
            return aside
    raise AssertionError("endless")


def parts(folder: Path) -> list[Path]:
    """What a killed `replacing` has left in a folder; delete them only where nobody writes."""
    return sorted(folder.glob(_PART.format("*")))


def is_stream(path: Path) -> bool:
    """Whether writing goes through it: a pipe, a character device, or a link to an open file."""
    with suppress(OSError):
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return True
        # with a redirection behind them, these are links to regular files
        name = os.path.abspath(path)
        return name in ("/dev/stdout", "/dev/stderr") or name.startswith(("/dev/fd/", "/proc/"))
    return False


def open_lock(path: Path) -> IO[bytes]:
    """Opens the file that `fcntl.flock` is to lock; it is made if need be, and never changed.

    Raises:
        OSError: the system refuses, or there is a link, whose target is none of our business.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link where a lock file belongs") from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file where a lock file belongs")
    return file


def finite(value: Any) -> Any:
    """Plain values as JSON has them: null for what is not finite, lists for tuples."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def parse_json(text: str | bytes, *, constants: bool = False) -> Any:
    """JSON as every program reads it alike: Unicode, with numbers that a double can hold.

    Args:
        constants: lets NaN and infinities through, for a reader that names the field.

    Raises:
        Unreadable: it is no JSON, nested too deeply, or holds NaN, infinity, a number beyond a
            double, or half a surrogate pair.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            text,
            parse_constant=float if constants else _no_constant,
            parse_float=_to_float,
            parse_int=_to_int,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except Unreadable:
        raise
    except UnicodeDecodeError as error:
        raise Unreadable(f"byte {error.start} is no UTF-8") from None
    except UnicodeEncodeError:
        raise Unreadable("a text holds half a surrogate pair") from None
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except ValueError as error:
        raise Unreadable(str(error)[:80]) from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is no JSON number")


def _to_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unreadable(f"the number {digits[:20]}... is beyond a double")
    return value


def _to_int(digits: str) -> int:
    _to_float(digits)  # before int(), which is slow, or refuses, from thousands of digits on
    return int(digits)


def _replaced(path: Path) -> os.stat_result | None:
    """The regular file that a write would replace; None for a link or nothing."""
    try:
        old = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(old.st_mode):
        return None
    if not stat.S_ISREG(old.st_mode):  # a folder, a disk, a socket
        raise OSError(errno.EINVAL, "neither a file nor a pipe")
    return old


def _keep_mode(old: os.stat_result, descriptor: int) -> None:
    with suppress(OSError):  # only root gives files away
        os.fchown(descriptor, old.st_uid, old.st_gid)
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # the file is in place; some file systems sync no folders
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
