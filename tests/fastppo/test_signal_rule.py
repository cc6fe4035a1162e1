"""One rule for SIGINT, SIGTERM and SIGHUP, in every command. Real processes, real signals."""

import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fastppo.signals import ECHO_S

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str


class Started:
    """A process whose output is read line by line."""

    def __init__(self, command: list[str]) -> None:
        # a shell's background job ignores signals and hands that on
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        try:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait_for(self, line: str) -> None:
        """Until it has printed a line with this text."""
        assert self.process.stdout is not None
        while line not in (told := self.process.stdout.readline()):
            assert told, self.process.communicate()

    def send(self, *numbers: int, apart: float = 3 * ECHO_S) -> None:
        """Sends signals, with a pause between two."""
        for i, number in enumerate(numbers):
            if i:
                time.sleep(apart)
            self.process.send_signal(number)

    def end(self) -> Ended:
        """Waits for its end."""
        try:
            out, err = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return Ended(self.process.returncode, out, err)


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Starts a command whose body is given, in the place of one of ours."""
    started: list[Started] = []

    def call(body: str) -> Started:
        script = (
            "import subprocess, sys, time\n"
            "from fastppo import program, signals\n"
            "from fastppo.children import Child\n"
            "def command():\n"
            f"{textwrap.indent(textwrap.dedent(body), '    ')}"
            "sys.exit(program.run(command))\n"
        )
        started.append(Started([sys.executable, "-c", script]))
        return started[-1]

    yield call
    for one in started:
        one.process.kill()
        one.process.wait()


STARTING = """
    try:
        print("ready", flush=True)
        time.sleep(60)
    except:  # as libraries do while they are imported
        time.sleep(60)
"""
UNWINDING = """
    with signals.unwinding():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            with signals.held():
                print("kept", flush=True)
                time.sleep(PATIENCE)
                print("written", flush=True)
    return 1
"""
HELD = """
    with signals.unwinding():
        with signals.held():
            print("ready", flush=True)
            time.sleep(1)
            print("written", flush=True)
        print("not reached", flush=True)
"""
STOPPING = """
    with signals.StopRequest() as stop:
        print("ready", flush=True)
        try:
            while True:
                stop.check()
                time.sleep(0.01)
        finally:
            print("saved", flush=True)
            time.sleep(PATIENCE)
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("body", "kept"),
    [(STARTING, ""), (UNWINDING, "kept\nwritten\n"), (HELD, "written\n"), (STOPPING, "saved\n")],
    ids=["starting", "unwinding", "held", "stopping"],
)
def test_a_signal_ends_a_command_with_128_and_its_number(
    number: int, body: str, kept: str, start: Callable[..., Started]
) -> None:
    process = start(body.replace("PATIENCE", "0"))
    process.wait_for("ready")
    process.send(number)

    assert process.end() == (128 + number, kept, "fastppo: interrupted\n")


@pytest.mark.parametrize(
    ("numbers", "body"),
    [((15, 15), STOPPING), ((2, 2), UNWINDING), ((1, 1), UNWINDING), ((15, 2), UNWINDING)],
)
def test_a_second_signal_ends_it_at_once_with_the_code_of_the_first(
    numbers: tuple[int, int], body: str, start: Callable[..., Started]
) -> None:
    process = start(body.replace("PATIENCE", "60"))
    process.wait_for("ready")
    process.send(numbers[0])
    process.wait_for("kept" if body == UNWINDING else "saved")
    time.sleep(2 * ECHO_S)
    process.send(numbers[1])
    code, out, err = process.end()

    assert code == 128 + numbers[0]
    assert "written" not in out
    assert err == "fastppo: interrupted\n"


def test_two_signals_at_a_time_are_one_request(start: Callable[..., Started]) -> None:
    """A shell hands on the SIGHUP that the kernel has sent already; `timeout` sends two SIGTERM."""
    process = start(UNWINDING.replace("PATIENCE", "0.5"))
    process.wait_for("ready")
    process.send(signal.SIGHUP, signal.SIGHUP, apart=0.05)

    assert process.end() == (129, "kept\nwritten\n", "fastppo: interrupted\n")


def test_a_second_signal_kills_the_children(start: Callable[..., Started]) -> None:
    process = start("""
        with signals.unwinding(), Child(["sleep", "600"]) as child:
            print("child", child.pid, flush=True)
            try:
                time.sleep(60)
            finally:
                time.sleep(60)
    """)
    assert process.process.stdout is not None
    child = int(process.process.stdout.readline().split()[1])
    process.send(signal.SIGTERM, signal.SIGTERM)

    assert process.end().code == 143
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_that_a_library_swallowed_still_ends_the_command(
    start: Callable[..., Started],
) -> None:
    process = start("""
        with signals.unwinding():
            try:
                print("ready", flush=True)
                time.sleep(60)
            except BaseException:
                pass
    """)
    process.wait_for("ready")
    process.send(signal.SIGTERM)

    assert process.end().code == 143


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    script = (
        "import os, signal, sys; from fastppo import program; "
        "sys.exit(program.run(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0))"
    )
    done = subprocess.run(
        ["bash", "-c", f"trap '' HUP; exec {shlex.quote(sys.executable)} -c {shlex.quote(script)}"],
        capture_output=True, text=True,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_importing_can_be_interrupted(number: int, tmp_path: Path) -> None:
    """Torch takes seconds to import; here it takes a minute, and catches what it can."""
    (tmp_path / "torch.py").write_text(
        "import time\nprint('ready', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "
               "from fastppo.__main__ import main; sys.exit(main())", str(tmp_path)]  # fmt: skip
    process = Started([*command, "doctor"])
    process.wait_for("ready")
    process.send(number)

    assert process.end() == (128 + number, "", "fastppo: interrupted\n")


def test_the_command_line_imports_nothing_slow_before_it_heeds_signals() -> None:
    code = (
        "import sys; import fastppo.__main__; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"torch", "numpy", "envpool", "tyro", "rich", "numba"} & set(found)


COMMANDS = {
    "train": ["train", "CartPole-v1", "--total-timesteps", "90000000", "--run-dir", "OUT/run"],
    "bench-train": ["bench", "train", "CartPole-v1", "--impl", "fastppo", "--json", "OUT/x.json"],
    "bench-learn": ["bench", "learn", "CartPole-v1", "--impl", "fastppo", "--json", "OUT/x.json"],
    "bench-env": ["bench", "env", "CartPole-v1", "--seconds", "60", "--json", "OUT/x.json"],
    "bench-kernels": ["bench", "kernels", "--json", "OUT/x.json"],
    "profile": ["profile", "CartPole-v1", "--updates", "500", "--out", "OUT/profile"],
    "static": ["static", "--compiler", "numba"],
    "gpu-check": ["gpu-check", "--device", "cpu", "--out", "OUT"],
    "gate-simulate": ["gate", "simulate", "--trials", "1000000", "--md", "OUT/x.md"],
    "gate-self-test": ["gate", "self-test"],
}


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.3, 4.0, 15.0])
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_by_the_rule(
    name: str, number: int, after_s: float, tmp_path: Path
) -> None:
    arguments = [word.replace("OUT", str(tmp_path)) for word in COMMANDS[name]]
    process = Started([sys.executable, "-m", "fastppo", *arguments])
    time.sleep(after_s)
    assert process.process.poll() is None, "it has ended by itself"
    process.send(number)
    code, _, err = process.end()

    assert code == 128 + number
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.part"))
