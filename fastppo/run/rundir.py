"""What a run leaves behind: config.json, metrics.jsonl and checkpoints/, in one folder."""

import fcntl
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from fastppo import files
from fastppo.config import Config, RunConfig
from fastppo.errors import MachineError, UserError, why
from fastppo.text import called, print_err
from fastppo.token_config import command_of, config_from

T = TypeVar("T")
C = TypeVar("C", bound=RunConfig)


class RunDir:
    """One run's folder, held by one process at a time.

    Use `create` for a new run and `open` for one that exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None
        self._metrics: IO[str] | None = None
        self._command = "train"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, record: dict[str, Any]) -> "RunDir":
        """Makes the folder and writes config.json.

        Args:
            path: the folder; None for runs/<env>-<seed>-<stamp>.
            record: machine and versions, stored with the config.

        Raises:
            UserError: the folder holds something already.
            MachineError: it cannot be written.
        """
        if path is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            name = config.env_id.replace("/", "_")
            path = unused(Path("runs") / f"{name}-{config.seed}-{stamp}")
        run = cls(path)
        run._command = command_of(config.env_id)
        try:
            _refuse_used(path)
            path.mkdir(parents=True, exist_ok=True)
            run._take_lock()
            run.checkpoints.mkdir(exist_ok=True)
            files.write(path / "config.json", _to_json({"config": config.to_dict(), **record}))
        except OSError as error:
            run.close()
            raise MachineError(_cannot_write(path, error, "or choose another folder")) from error
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """A run that exists, for reading; `resume` before writing to it.

        Raises:
            UserError: there is no run there, or it may not be read.
        """
        try:
            holds_run = stat.S_ISREG((path / "config.json").stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            holds_run = False
        except OSError as error:
            message = f"run_dir: {path} cannot be read ({why(error)}); make it readable"
            raise UserError(message) from None
        if not holds_run:
            raise UserError(f"run_dir: {path} holds no run (no config.json)")
        return cls(path)

    def read_config(self) -> Config:
        """The config that a run of `fastppo train` was started with.

        Raises:
            UserError: config.json is damaged or from another version, or the run another command's.
        """
        return self.read_config_of(Config, "train")

    def read_config_of(self, kind: type[C], command: str) -> C:
        """The config that a run of a command was started with; errors as `read_config`."""
        config = self.read_any_config()
        if not isinstance(config, kind):
            is_of = command_of(config.env_id)
            raise UserError(
                f"run_dir: {self.path} is a run of `fastppo {is_of}`; name one of "
                f"`fastppo {command}`"
            )
        return config

    def read_any_config(self) -> RunConfig:
        """The config of a run of any command; errors as `read_config`."""
        config = self._field("config", config_from)
        self._command = command_of(config.env_id)
        return config

    def read_task(self) -> dict[str, Any]:
        """What the run recorded of its task: `spec` and `actions`.

        Raises:
            UserError: config.json is damaged.
        """

        from fastppo.actions import ActionSpace
        from fastppo.tasks import EnvSpec  # takes EnvPool, which `fastppo track` does without

        def checked(task: dict[str, Any]) -> dict[str, Any]:
            try:
                return {
                    "spec": EnvSpec.from_dict(task["spec"]),
                    "actions": ActionSpace.from_dict(task["actions"]),
                }
            except KeyError as error:
                raise ValueError(f"task: {error} is missing") from None

        return self._field("task", checked)

    def read_record(self) -> dict[str, Any]:
        """All of config.json: settings, machine, versions, command.

        Raises:
            UserError: it is damaged.
        """
        return self._read(lambda record: record)

    def _field(self, name: str, read: Callable[[dict[str, Any]], T]) -> T:
        """A field of config.json, as `read` makes it."""

        def of_record(record: dict[str, Any]) -> T:
            value = record.get(name)
            if not isinstance(value, dict):
                raise files.Unreadable(f"no field {name!r} that holds an object")
            return read(value)

        return self._read(of_record)

    def _read(self, read: Callable[[dict[str, Any]], T]) -> T:
        """What `read` makes of config.json."""
        source = self.path / "config.json"
        try:
            record = files.parse_json(source.read_bytes(), constants=True)
            return read(record if isinstance(record, dict) else {})
        except (ValueError, TypeError, OSError) as error:
            reason = why(error) if isinstance(error, OSError) else error
            remedy = "restore the file, or train into a new run_dir"
            raise UserError(f"run_dir: {source} cannot be read ({reason}); {remedy}") from None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics of every update so far; lines that are damaged are left out.

        Raises:
            UserError: the file may not be read.
        """
        source = self.path / "metrics.jsonl"
        try:
            kept, _ = _split(source.read_bytes() if source.exists() else b"", sys.maxsize)
        except OSError as error:
            message = f"run_dir: {source} cannot be read ({why(error)}); make it readable"
            raise UserError(message) from None
        return [files.parse_json(line) for line in kept]

    def resume(self, update: int) -> None:
        """Takes the run over, dropping metrics written after the checkpoint of `update` updates.

        Lines that are no metrics are kept in a file of their own, and reported on stderr.

        Raises:
            UserError: another process is writing to the run.
            MachineError: it cannot be written.
        """
        source = self.path / "metrics.jsonl"
        try:
            self._take_lock()
            self.checkpoints.mkdir(exist_ok=True)
            kept, damaged = _split(source.read_bytes() if source.exists() else b"", update)
            if damaged:
                aside = files.keep_aside(source, b"".join(damaged))
                lines = "1 damaged line" if len(damaged) == 1 else f"{len(damaged)} damaged lines"
                print_err(f"fastppo: {source}: {lines} moved to {aside.name}")
            files.write(source, b"".join(kept))
        except OSError as error:
            self.close()
            raise MachineError(_cannot_write(self.path, error, "then try again")) from error

    def log(self, metrics: dict[str, Any]) -> None:
        """Appends one update's metrics and flushes; values that are not finite become null.

        Raises:
            MachineError: the disk is full or gone.
        """
        self._check_there()
        try:
            if self._metrics is None:
                self._metrics = (self.path / "metrics.jsonl").open("a")
            self._metrics.write(_to_json(metrics) + "\n")
            self._metrics.flush()
        except OSError as error:
            remedy = f"then go on with `{called()} {self._command} --resume {self.path}`"
            raise MachineError(_cannot_write(self.path / "metrics.jsonl", error, remedy)) from error

    def save(self, update: int, state: dict[str, Any], keep: int) -> Path:
        """Writes the checkpoint after `update` updates and deletes the oldest beyond `keep`.

        Raises:
            MachineError: the disk is full or gone.
        """
        from fastppo import checkpoint  # takes torch, which `fastppo track` does without

        self._check_there()
        path = self.checkpoints / f"{update:08d}.pt"
        checkpoint.save(path, state)
        checkpoint.prune(self.checkpoints, keep)
        return path

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint; None where the run ended before it wrote one.

        Raises:
            UserError: it is damaged, or there is none any more.
        """
        from fastppo import checkpoint

        paths = checkpoint.find(self.checkpoints)
        if paths:
            return checkpoint.load(paths[-1])
        if (self.path / "metrics.jsonl").exists():
            raise UserError(
                f"checkpoint: none in {self.checkpoints}, though metrics.jsonl holds updates; "
                "restore one, or train into a new run_dir"
            )
        return None

    def close(self) -> None:
        """Closes the metrics file and lets go of the lock."""
        for file in (self._metrics, self._lock):
            if file is not None:
                with suppress(OSError):  # a full disk was reported when the line was written
                    file.close()
        self._metrics = self._lock = None

    def _check_there(self) -> None:
        """Refuses to write into a folder that was deleted or moved, instead of making it again."""
        for name, file in ((".lock", self._lock), ("metrics.jsonl", self._metrics)):
            if file is None:
                continue
            with suppress(OSError):
                if os.path.samestat(os.stat(self.path / name), os.fstat(file.fileno())):
                    continue
            raise MachineError(
                f"run_dir: {self.path / name} was deleted or moved while the run was writing to "
                "it; train into a new run_dir"
            )

    def _take_lock(self) -> None:
        self._lock = files.open_lock(self.path / ".lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            remedy = "wait for it to end, or stop it"
            raise UserError(
                f"run_dir: {self.path} is in use by another process; {remedy}"
            ) from None
        for folder in (self.path, self.checkpoints):
            for part in files.parts(folder):
                part.unlink()


def _refuse_used(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"run_dir: {path} is a file; name a folder")
    if (path / "config.json").exists():
        command = "train"
        with suppress(UserError):
            command = command_of(RunDir(path).read_any_config().env_id)
        remedy = f"go on with `{called()} {command} --resume {path}` or choose another folder"
        raise UserError(f"run_dir: {path} holds another run; {remedy}")
    # a run that ended before its config.json was whole leaves a lock, an empty folder, a part
    ours = {path / ".lock", path / "checkpoints", *files.parts(path)}
    if path.exists() and (set(path.iterdir()) - ours or any((path / "checkpoints").glob("*"))):
        raise UserError(f"run_dir: {path} is not empty and no run; choose another folder")


def _cannot_write(path: Path, error: OSError, remedy: str) -> str:
    reason = why(error)
    return f"run_dir: cannot write {path} ({reason}); free space or make it writable, {remedy}"


def _split(data: bytes, update: int) -> tuple[list[bytes], list[bytes]]:
    """The lines of metrics.jsonl up to an update, and those that are damaged.

    Later ones are dropped: these updates are done again. So is a last line that a crash cut short.
    """
    kept: dict[int, bytes] = {}
    damaged = []
    for line in data.splitlines(keepends=True):
        try:
            row = files.parse_json(line)
            at = row.get("update") if isinstance(row, dict) else None
        except files.Unreadable:
            at = None
        if not isinstance(at, int) or isinstance(at, bool) or at in kept:
            damaged.append(line)
        elif at <= update:
            kept[at] = line.rstrip(b"\n") + b"\n"
    if damaged and not damaged[-1].endswith(b"\n"):
        del damaged[-1]
    return list(kept.values()), damaged


def unused(path: Path) -> Path:
    """The path, or with a number behind it, so that it is not there yet."""
    tried, count = path, 1
    while tried.exists():
        count += 1
        tried = path.with_name(f"{path.name}-{count}")
    return tried


def _to_json(values: dict[str, Any]) -> str:
    return json.dumps(files.finite(values), default=str, allow_nan=False)
