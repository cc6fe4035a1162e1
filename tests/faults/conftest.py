"""A campaign of faults against the command line: each try is a process that is forked for it.

Forking saves the seconds of importing torch, so that hundreds of tries fit into minutes. The table
of what was tried and what went right is printed at the end: `make faults`.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 120.0
TINY = (
    "CartPole-v1", "--num-envs", "4", "--num-steps", "16", "--num-minibatches", "2",
    "--update-epochs", "1", "--hidden-sizes", "8", "--device", "cpu", "--quiet",
    "--env-threads", "1", "--torch-threads", "1",
)  # fmt: skip


VALUES: list[Any] = [
    None, True, -1, 0, 2**70, 1.5, "x", "", [], {}, [[[[]]]], {"a": {"b": []}}, "\x1b[31m", "é",
]  # fmt: skip
RAW = ["1e999", "NaN", "-Infinity", "1" * 5000, "[" * 100_000, '"\\ud800"']
"""What no JSON value of ours is, in place of one."""


def damaged(data: bytes, draw: random.Random) -> bytes:
    """One of: a flipped bit, bytes lost, put in, doubled, or the rest cut off."""
    at = draw.randrange(len(data))
    end = min(len(data), at + draw.randrange(1, 64))
    return draw.choice(
        [
            data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :],
            data[:at] + data[end:],
            data[:at] + draw.choice([b"\xff", b"\x00", b"\n", b"}", b"\xed\xa0\x80"]) + data[at:],
            data[:end] + data[at:],
            data[:at],
        ]
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


def edited(text: str, draw: random.Random) -> str:
    """The same JSON with one value replaced by another, or left out."""
    value = json.loads(text)
    path = draw.choice(places(value)[1:])
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    choice = draw.randrange(len(VALUES) + len(RAW) + 2)
    if choice < len(VALUES):
        holder[path[-1]] = VALUES[choice]
    elif choice < len(VALUES) + len(RAW):
        holder[path[-1]] = "@here@"
        return json.dumps(value).replace('"@here@"', RAW[choice - len(VALUES)])
    else:
        del holder[path[-1]]
    return json.dumps(value)


def edited_line(text: str, draw: random.Random) -> str:
    """JSON Lines with one line edited."""
    lines = text.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = edited(lines[at], draw)
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Exit code; minus the number of the signal that killed it."""
    out: str
    err: str

    @property
    def is_clean(self) -> bool:
        """An exit code of ours, and no traceback for a fault that is not ours."""
        told = self.out + self.err
        return self.code in range(6) and "Traceback" not in told and "Error:" not in told


@dataclass
class Tally:
    """What was tried and what went right, by group."""

    tried: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def add(self, group: str, what: str, *, right: bool) -> None:
        self.tried[group] = self.tried.get(group, 0) + 1
        if not right:
            self.wrong.setdefault(group, []).append(what)

    def check(self, group: str) -> None:
        """Fails where anything of the group went wrong."""
        assert self.tried[group] > 0
        assert self.wrong.get(group, []) == []

    def table(self) -> Iterator[str]:
        yield "| group | tried | right |"
        yield "|---|---|---|"
        for group, tried in self.tried.items():
            yield f"| {group} | {tried} | {tried - len(self.wrong.get(group, []))} |"


_TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    return _TALLY


@pytest.fixture(scope="session")
def fork() -> Callable[..., "Forked"]:
    """`Forked`, with everything imported that a child would import."""
    from fastppo.kernels import api
    from fastppo.run import evaluate, session  # noqa: F401

    api.warmup()
    return Forked


@pytest.fixture(scope="session")
def mutants() -> Callable[..., Iterator[tuple[str, bytes]]]:
    """Makes a kind of damage and what a file holds then, again and again, always the same ones."""

    def make(whole: bytes, tries: int, edit: str | None = None) -> Iterator[tuple[str, bytes]]:
        draw = random.Random(len(whole))
        change = {"json": edited, "lines": edited_line}.get(edit or "")
        for _ in range(tries):
            yield "bytes", damaged(whole, draw)
            if change is not None:
                yield "values", change(whole.decode(), draw).encode()

    return make


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, fork: Callable[..., "Forked"]) -> Path:
    """A run of six updates with two checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    args = ["train", *TINY, "--total-timesteps", "384", "--checkpoint-interval", "4"]
    assert fork([*args, "--run-dir", "run"], folder).wait().code == 0
    return folder / "run"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _TALLY.tried:
        terminalreporter.section("faults")
        for line in _TALLY.table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def result_file(tmp_path_factory: pytest.TempPathFactory, fork: Callable[..., "Forked"]) -> Path:
    """A measured result: EnvPool alone, for a moment."""
    folder = tmp_path_factory.mktemp("measured")
    size = ["--num-envs", "4", "--threads", "1", "--seconds", "0.5", "--rounds", "2"]
    args = ["bench", "env", "CartPole-v1", *size, "--json", "env.json"]
    assert fork(args, folder).wait().code == 0
    return folder / "env.json"


class Forked:
    """A command in a process of its own, forked from this one.

    Args:
        args: as after `fastppo`.
        folder: its working folder; its output is kept next to that.
        prepare: called in the child first.
    """

    def __init__(
        self, args: list[str], folder: Path, prepare: Callable[[], None] | None = None
    ) -> None:
        # not inside: the folder may be a full disk
        self._files = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                for number, path in enumerate(self._files, 1):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                # pytest has put its own in place of these
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.chdir(folder)
                if prepare is not None:
                    prepare()
                code = _main(args)
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def wait(self, limit_s: float = LIMIT_S) -> Outcome:
        """Its end; one that takes longer than `limit_s` is killed, which shows in the code."""
        end = time.monotonic() + limit_s
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                found = os.waitpid(self.pid, 0)
                break
            time.sleep(0.002)
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in self._files]
        return Outcome(os.waitstatus_to_exitcode(found[1]), *texts)

    def signal_after(self, seconds: float, number: int) -> Outcome:
        """Sends a signal after a while, and waits. One that has ended already does not notice."""
        time.sleep(seconds)
        os.kill(self.pid, number)  # not waited for yet, so the number is still its own
        return self.wait()


def _main(args: list[str]) -> int:
    from fastppo import cli

    try:
        return cli.main(args)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
