"""The quick benchmark: fastppo beside the reference trainer and EnvPool alone, in one sitting.

Each implementation runs in a process of its own. After a warm-up the parent asks for slices in the
order A B C, C B A, A B C, ...: a round is one slice of each, taken next to each other, and what
drifts on a shared machine hits both halves of a pair of rounds alike. Ratios are taken within
rounds (`samples.summarise`).
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastppo import machine
from fastppo.bench.remote import RemoteWorker
from fastppo.bench.samples import Round, Sample, summarise
from fastppo.bench.table import render
from fastppo.config import Config
from fastppo.envs import describe
from fastppo.errors import MachineError, UserError
from fastppo.presets import PRESETS, preset_for
from fastppo.rundir import write_atomic
from fastppo.threads import available_cores

SCHEMA = "fastppo.quick/1"
ORDER = ("fastppo", "reference", "envpool")
# What both trainers must agree on before their rates may be compared.
WORK = ("num_parameters", "batch_size", "minibatch_size", "update_epochs", "steps_per_update")

# Preset defaults but for these.
WORKLOADS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    # many environments in one step: what two cores do best with MuJoCo
    "HalfCheetah-v4": {"num_envs": 64, "num_steps": 64, "num_minibatches": 4},
    "Pong-v5": {"num_envs": 8, "num_steps": 128},
}


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    seconds: float
    """Per environment, warm-up excluded; the round in progress is finished."""
    slice_seconds: float
    """Least length of one slice."""
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Smaller workloads, per environment."""


FULL = Effort(seconds=40.0, slice_seconds=1.0)
# A whole update of Pong takes seconds; CI needs several within its minute.
BRIEF = Effort(seconds=8.0, slice_seconds=0.4, overrides={"Pong-v5": {"num_steps": 32}})


@dataclass(frozen=True, slots=True)
class Measurement:
    """One environment, measured."""

    config: Config
    descriptions: dict[str, dict[str, Any]]
    """Per implementation: sizes and threads, as its worker told them."""
    thread_probe: dict[str, dict[int, float]]
    """Each trainer's env steps/s per number of torch threads; the best one was measured."""
    rounds: list[Round]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the JSON record."""
        rounds = [{name: asdict(sample) for name, sample in r.items()} for r in self.rounds]
        return {
            "env_id": self.config.env_id,
            "config": self.config.to_dict(),
            "implementations": self.descriptions,
            "thread_probe": self.thread_probe,
            "rounds": rounds,
            "summary": asdict(summarise(self.rounds)),
        }


def worker_command(name: str) -> list[str]:
    """The program that serves one implementation."""
    return [sys.executable, "-m", "fastppo.bench.worker", name]


def workload(env_id: str, effort: Effort) -> Config:
    """The config both trainers run: the preset, but for WORKLOADS, and no end in sight."""
    settings = {
        **PRESETS[preset_for(describe(env_id))],
        **WORKLOADS[env_id],
        **effort.overrides.get(env_id, {}),
        # so far away that annealing does not move
        "total_timesteps": 10**9,
    }
    return Config(env_id=env_id, **settings)


def measure(
    config: Config,
    *,
    seconds: float,
    slice_seconds: float,
    command: Callable[[str], Sequence[str]],
) -> Measurement:
    """Rounds of slices until `seconds` have passed: at least two, and always an even number.

    Args:
        command: gives the program that serves an implementation.

    Raises:
        MachineError: a worker died, or the two trainers do not do the same work.
    """
    with ExitStack() as stack:
        workers = {name: stack.enter_context(RemoteWorker(name, command(name))) for name in ORDER}
        requests: dict[str, dict[str, Any]] = {name: {"seconds": slice_seconds} for name in ORDER}
        descriptions: dict[str, dict[str, Any]] = {}
        probe: dict[str, dict[int, float]] = {}
        for name in ("fastppo", "reference"):
            probe[name] = rates = probe_threads(workers[name], config)
            torch_threads = max(rates, key=lambda threads: rates[threads])
            requests[name]["torch_threads"] = torch_threads
            descriptions[name] = workers[name].ask(_opening(config))
            descriptions[name]["torch_threads"] = torch_threads
        # the ceiling gets the threads that fastppo steps the environments with
        env_threads = descriptions["fastppo"]["env_threads"]
        descriptions["envpool"] = workers["envpool"].ask(_opening(config, env_threads))

        for name in ORDER:
            warm = workers[name].ask(requests[name])
            descriptions[name]["steps_per_update"] = warm["optimizer_steps"] / warm["updates"]
        check_same_work(descriptions["fastppo"], descriptions["reference"])

        rounds: list[Round] = []
        start = time.monotonic()
        while not rounds or time.monotonic() - start < seconds:
            for order in (ORDER, ORDER[::-1]):
                rounds.append({name: _sample(workers[name].ask(requests[name])) for name in order})
    return Measurement(config, descriptions, probe, rounds)


def _opening(config: Config, env_threads: int = 0) -> dict[str, Any]:
    return {"config": config.to_dict(), "env_threads": env_threads}


def _sample(answer: dict[str, Any]) -> Sample:
    return Sample(
        env_steps=answer["env_steps"],
        updates=answer["updates"],
        seconds=answer["seconds"],
        phases=answer["phases"],
    )


def check_same_work(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuses to compare trainers that differ in a field of WORK.

    Raises:
        MachineError: names the fields and both values.
    """
    odd = [f"{key} {ours[key]} and {theirs[key]}" for key in WORK if ours[key] != theirs[key]]
    if odd:
        raise MachineError(f"fastppo and the reference do different work: {', '.join(odd)}")


def probe_threads(worker: RemoteWorker, config: Config) -> dict[int, float]:
    """A trainer's env steps/s with one torch thread and with every core.

    Both trainers get the better one, as a user who tries the two would set it. On a busy machine
    the worse can be 50 times slower, so the probe runs updates of one minibatch per epoch: the
    same steps in the same proportion, in a fraction of the time.
    """
    num_steps = max(1, config.num_steps // config.num_minibatches)
    worker.ask(_opening(replace(config, num_steps=num_steps, num_minibatches=1)))
    rates: dict[int, float] = {}
    for threads in sorted({1, available_cores()}):
        request = {"seconds": 0.0, "torch_threads": threads}
        worker.ask(request)  # warms up, and starts the threads
        rates[threads] = _sample(worker.ask(request)).env_steps_per_s
    return rates


def run(
    effort: Effort, *, env_ids: Sequence[str], seconds: float | None, json_path: Path | None
) -> None:
    """Measures, writes the record if asked for, and prints the table.

    Args:
        seconds: per environment, in place of the effort's own.

    Raises:
        MachineError: it could not be measured.
        UserError: the record cannot be written there; told before anything is measured.
    """
    if json_path is not None:
        _check_writable(json_path)
    header = {
        # the load before the measurement adds to it
        "machine": machine.machine() | {"load": list(os.getloadavg())},
        "versions": machine.versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "fastppo.bench", *sys.argv[1:]]),
    }
    measurements = []
    for index, env_id in enumerate(env_ids):
        print(f"[{index + 1}/{len(env_ids)}] measuring {env_id} ...", file=sys.stderr, flush=True)
        measurements.append(
            measure(
                workload(env_id, effort),
                seconds=effort.seconds if seconds is None else seconds,
                slice_seconds=effort.slice_seconds,
                command=worker_command,
            )
        )
    records = [measurement.to_dict() for measurement in measurements]
    if json_path is not None:
        record = {"schema": SCHEMA, **header, "results": records}
        write_atomic(json_path, json.dumps(record, indent=1) + "\n")
    render(header, records)


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(
            f"--json: {str(path)!r} cannot be written; name a file in a folder that can"
        )
