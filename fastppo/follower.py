"""Reads a file of metrics while a run writes it. Standard library only."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastppo import files


class Follower:
    """The rows of a growing JSON-lines file; a last line without its end is left for later.

    The file stays open: one that a resumed run puts in its place is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._offset = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that are new since the last call."""
        if self._file is None:
            if not self._path.exists():
                return
            self._file = self._path.open("rb")
        self._file.seek(self._offset)
        for line in self._file:
            if not line.endswith(b"\n"):
                return
            self._offset += len(line)
            row = files.parse_json(line)
            if not isinstance(row, dict):
                raise files.Unreadable("a line is no object")
            yield row

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
