"""Reads W&B's offline files (`run-<id>.wandb`) record by record.

The file is LevelDB's log format around protocol buffers. W&B 0.31 ships no reader in Python.
"""

import importlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbLog:
    """What one offline file says."""

    run: Any = None
    """The run record: project, run_group, job_type, tags, display_name, run_id ..."""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """Logged rows without W&B's own keys, which begin with an underscore."""
    axes: dict[str, str] = field(default_factory=dict)
    """Step metric of each defined metric or pattern; empty where it has none."""
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    """None for a run that was killed."""

    @property
    def is_whole(self) -> bool:
        """Whether the run was ended properly."""
        return self.exit_code is not None


def records(path: Path) -> Iterator[Any]:
    """The records of a file, up to a torn tail.

    Raises:
        ValueError: no W&B file, or damaged in the middle.
    """
    proto: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data = path.read_bytes()
    if data[:4] != b":W&B":
        raise ValueError(f"{path} is no W&B file")
    offset, parts = 7, b""
    while offset + HEADER.size <= len(data):
        if (left := BLOCK - offset % BLOCK) < HEADER.size:
            offset += left
            continue
        checksum, length, kind = HEADER.unpack_from(data, offset)
        offset += HEADER.size
        payload = data[offset : offset + length]
        if len(payload) < length or (kind == 0 and length == 0):
            return  # still being written, or killed in the middle of it
        offset += length
        if zlib.crc32(payload, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"{path} is damaged at byte {offset}")
        parts = payload if kind in (FULL, FIRST) else parts + payload
        if kind in (FULL, LAST):
            yield proto.Record.FromString(parts)


def read(path: Path) -> WandbLog:
    """Everything a file says; of a killed run, what it says before the torn tail.

    Raises:
        ValueError: no W&B file, or damaged in the middle.
    """
    log = WandbLog()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            log.run = record.run
            log.config |= _items(record.run.config.update)
        elif kind == "config":
            log.config |= _items(record.config.update)
        elif kind == "history":
            row = _items(record.history.item)
            log.history.append({k: v for k, v in row.items() if not k.startswith("_")})
        elif kind == "metric":
            log.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "summary":
            log.summary |= _items(record.summary.update)
        elif kind == "artifact":
            log.artifacts.append(record.artifact)
        elif kind == "exit":
            log.exit_code = record.exit.exit_code
    return log


def table(log: WandbLog, folder: Path, key: str) -> dict[str, Any]:
    """Columns and rows of a table that was logged under `key`, from the run's media files."""
    [path] = [row[f"{key}/path"] for row in log.history if f"{key}/path" in row]
    loaded: dict[str, Any] = json.loads((folder / "files" / path).read_text())
    return loaded


def _items(entries: Iterable[Any]) -> dict[str, Any]:
    return {
        entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries
    }
