"""The quick benchmark: pairing, table, and how it ends when something goes wrong."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastppo.bench import __main__ as command_line
from fastppo.bench import quick, table, worker
from fastppo.bench.remote import RemoteWorker
from fastppo.bench.samples import Round, Sample, summarise
from fastppo.config import Config
from fastppo.errors import MachineError

CONFIG = Config(env_id="CartPole-v1")

# Speaks the protocol at a fixed rate: argv is env steps per second, number of parameters, and the
# number of requests after which it dies.
FAKE = """
import json, sys
rate, num_parameters, lives = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for line in sys.stdin:
    if lives == 0:
        print("Traceback: many lines", file=sys.stderr)
        sys.exit("RuntimeError: out of luck")
    lives -= 1
    work = {"num_parameters": num_parameters, "batch_size": 8, "minibatch_size": 4,
            "update_epochs": 1, "env_threads": 1, "torch_threads": 1}
    run = {"env_steps": rate, "updates": 1, "seconds": 1.0, "optimizer_steps": 2,
           "phases": {"env": 0.25, "update": 0.75}}
    print(json.dumps(work if "config" in json.loads(line) else run), flush=True)
"""


def fake(rate: int, num_parameters: int = 10, lives: int = 1000) -> list[str]:
    return [sys.executable, "-c", FAKE, str(rate), str(num_parameters), str(lives)]


def measure(**commands: list[str]) -> quick.Measurement:
    return quick.measure(CONFIG, seconds=0.01, slice_seconds=0.0, command=commands.__getitem__)


def sample(rate: float, **phases: float) -> Sample:
    return Sample(env_steps=int(rate * 2), updates=1, seconds=2.0, phases=phases)


def round_of(fastppo: float, reference: float) -> Round:
    return {
        "fastppo": sample(fastppo, env=1.0, policy=0.5, update=0.5),
        "reference": sample(reference),
        "envpool": sample(1000.0),
    }


@pytest.fixture
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_ratio_is_taken_within_rounds() -> None:
    """The machine halves in the second round; the pairs do not notice, pooled medians would."""
    summary = summarise([round_of(400, 100), round_of(200, 50), round_of(300, 100)])

    assert summary.ratio == 4.0
    assert (summary.ratio_low, summary.ratio_high) == (3.0, 4.0)
    assert summary.rates == {"fastppo": 300.0, "reference": 100.0, "envpool": 1000.0}
    assert summary.phase_shares["env"] == 0.5
    assert sum(summary.phase_shares.values()) == pytest.approx(1.0)


def test_a_fastppo_half_as_fast_gets_the_ratio_one_half() -> None:
    result = measure(fastppo=fake(100), reference=fake(200), envpool=fake(1000))
    summary = summarise(result.rounds)

    assert summary.ratio == summary.ratio_low == summary.ratio_high == 0.5
    assert len(result.rounds) % 2 == 0
    # the order of a round is the order it ran in: each second round is reversed
    assert list(result.rounds[0]) == list(reversed(result.rounds[1]))


def test_trainers_that_differ_in_size_are_not_compared() -> None:
    with pytest.raises(MachineError, match="different work: num_parameters 10 and 11"):
        measure(fastppo=fake(100), reference=fake(100, num_parameters=11), envpool=fake(1))


def test_a_dead_worker_is_one_line_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {"fastppo": fake(1, lives=2), "reference": fake(1), "envpool": fake(1)}
    monkeypatch.setattr(quick, "worker_command", commands.__getitem__)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["bench", "quick", "--quick", "--env-id", "CartPole-v1"])

    assert command_line.main() == 3

    told = [line for line in capsys.readouterr().err.splitlines() if "measuring" not in line]
    assert told == [
        "fastppo: error: worker fastppo died (exit code 1): RuntimeError: out of luck",
    ]


def test_a_silent_worker_is_given_up() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with (
        RemoteWorker("sleeper", command, timeout_s=0.1) as sleeper,
        pytest.raises(MachineError, match="worker sleeper: no answer"),
    ):
        sleeper.ask({})


def test_a_record_that_cannot_be_written_is_refused_before_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    target = str(tmp_path / "no" / "such.json")
    monkeypatch.setattr(sys, "argv", ["bench", "quick", "--json", target])

    assert command_line.main() == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.usefixtures("_threads_as_before")
@pytest.mark.parametrize("name", worker.IMPLEMENTATIONS)
def test_every_worker_speaks_the_protocol(name: str) -> None:
    config = Config(env_id="CartPole-v1", num_steps=16, num_minibatches=2, update_epochs=1)
    answers = io.StringIO()
    opening = {"config": config.to_dict(), "env_threads": 1}
    requests = [opening, {"seconds": 0.0}, opening, {"seconds": 0.0, "torch_threads": 1}]

    worker.serve(name, [json.dumps(request) for request in requests], answers)

    described, first, again, _ = map(json.loads, answers.getvalue().splitlines())
    assert described == again
    assert described["env_threads"] == 1
    assert first["updates"] == 1
    assert first["seconds"] > 0
    # eight games of CartPole rarely end within 16 steps, and their reset rows do not count
    assert 8 * 16 - 8 <= first["env_steps"] <= 8 * 16
    if name != "envpool":
        assert first["optimizer_steps"] == 2
        assert described["batch_size"] == 8 * 16


def record(env_id: str, scale: float) -> dict[str, Any]:
    rounds = [round_of(123456 * scale, 1000 * scale), round_of(9900 * scale, 100 * scale)]
    described = {
        "num_parameters": 1687719,
        "batch_size": 1024,
        "minibatch_size": 256,
        "update_epochs": 10,
        "env_threads": 128,
        "torch_threads": 128,
    }
    implementations = dict.fromkeys(quick.ORDER, described)
    probe = {name: {1: 1e6, 128: 2e6} for name in ("fastppo", "reference")}
    config = Config(env_id=env_id, num_envs=1024, num_steps=1024, total_timesteps=10**9)
    return quick.Measurement(config, implementations, probe, rounds).to_dict()


@pytest.mark.parametrize("terminal", [False, True])
def test_the_table_fits_80_columns(terminal: bool) -> None:
    out = io.StringIO()
    # wide, so that nothing is wrapped that would not fit
    console = Console(file=out, force_terminal=terminal, width=200, color_system=None)
    machine = {"cpu": "Some Processor @ 3 GHz", "cores": 128, "load": [1.0, 2.0, 3.0]}
    versions = {"torch": "2.13.0+cpu", "envpool": "1.2.5", "python": "3.11.7"}
    header = {"machine": machine, "versions": versions, "date": "x", "command": "python -m x"}

    table.render(header, [record("HalfCheetah-v4", 1.0), record("Pong-v5", 10.0)], console)

    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= table.WIDTH
    assert sum(line.lstrip().startswith("HalfCheetah-v4") for line in lines) == 3
    assert sum("111.23 (99.00-123.46)" in line for line in lines) == 2
    assert terminal or out.getvalue().isascii()


def quick_process(*arguments: str) -> subprocess.Popen[str]:
    # a shell's background job ignores SIGINT and hands that on; a handler it cannot hand on
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "fastppo.bench", "quick", "--env-id", "CartPole-v1", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # spinning torch threads take seconds for what takes milliseconds on a busy machine
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_real_run_ends_with_a_table_and_a_record(tmp_path: Path) -> None:
    path = tmp_path / "quick.json"

    run = quick_process("--quick", "--seconds", "0.1", "--json", str(path))
    out, err = run.communicate()

    assert run.returncode == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert "CartPole-v1" in out
    written = json.loads(path.read_text())
    assert written["schema"] == quick.SCHEMA
    (result,) = written["results"]
    for one_round in result["rounds"]:
        assert set(one_round) == set(quick.ORDER)
        assert all(s["env_steps"] > 0 and s["seconds"] > 0 for s in one_round.values())
    assert result["summary"]["ratio"] > 0


def test_an_interrupt_kills_the_workers() -> None:
    run = quick_process("--seconds", "1000")
    assert run.stderr is not None
    assert "measuring" in run.stderr.readline()
    children: list[str] = []
    while len(children) < len(quick.ORDER):
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        time.sleep(0.01)

    run.send_signal(signal.SIGINT)
    _, err = run.communicate()

    assert run.returncode == 130
    assert err.splitlines() == ["fastppo: interrupted"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
