"""What `fastppo doctor` tells about this installation, and about every task."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from fastppo import machine
from fastppo.cgroups import available_cores
from fastppo.run import doctor


def report(command: Callable[..., Any], *args: str) -> str:
    outcome = command("doctor", *args)
    assert outcome.code == 0
    assert outcome.err == ""
    return " ".join(outcome.out.split())


def test_report_names_versions_cores_backends_and_the_plan(command: Callable[..., Any]) -> None:
    text = report(command, "CartPole-v1")

    for name, version in machine.versions().items():
        assert f"{name} {version or 'not installed'}" in text
    assert f"{available_cores()} cores" in text
    for name in ("triton", "numba", "torch"):
        assert f"backend {name} " in text
    assert "backend torch serves" in text
    assert "plan for CartPole-v1, 8 environments, on " in text
    assert "threads EnvPool 1, torch 1" in text
    assert "gpu " in text


def test_report_is_about_the_task_that_is_named(command: Callable[..., Any]) -> None:
    assert "plan for Pong-v5, 8 environments" in report(command, "Pong-v5")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"OMP_NUM_THREADS": "7"}, "OMP_NUM_THREADS=7 is set"),
        ({"TRITON_INTERPRET": "1"}, "thousands of times slower"),
        ({"PATH": ""}, "no C++ compiler"),
    ],
)
def test_what_would_spoil_a_run_is_warned_of(
    change: dict[str, str], warning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "TRITON_INTERPRET"):
        monkeypatch.delenv(name, raising=False)
    assert not any(warning in line for line in doctor.warnings())

    for name, value in change.items():
        monkeypatch.setenv(name, value)

    assert any(warning in line for line in doctor.warnings())


def test_a_busy_machine_and_a_full_disk_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert not any("load is" in line for line in doctor.warnings())

    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    lines = doctor.warnings()
    assert any("load is 99.0" in line for line in lines)
    assert any("less than 1 GB of disk" in line for line in lines)


def test_tasks_are_listed_as_served_or_refused_with_the_reason(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = ["CartPole-v1", "D1Basic-v1", "Hopper-v4", "Pong-v5"]
    monkeypatch.setattr(doctor, "all_env_ids", lambda: tasks)

    lines = command("doctor", "--envs").out.splitlines()

    assert [line.split()[:2] for line in lines[:4]] == [
        ["CartPole-v1", "served"], ["D1Basic-v1", "refused"], ["Hopper-v4", "served"],
        ["Pong-v5", "served"],
    ]  # fmt: skip
    assert "float32 (4,), discrete (2,)" in lines[0]
    assert "unbounded action" in lines[1]
    assert "continuous 3" in lines[2]
    assert lines[4] == "4 tasks: 3 served, 1 refused"


@pytest.mark.slow
def test_every_task_is_listed_on_one_line(command: Callable[..., Any]) -> None:
    lines = command("doctor", "--envs").out.splitlines()

    assert len(lines) == 1651 + 1
    assert all(line.split()[1] in ("served", "refused") for line in lines[:-1])
    assert all(len(line.split()) > 2 for line in lines[:-1])
    assert lines[-1].startswith("1651 tasks: ")


def test_brackets_in_a_variable_reach_the_terminal_of_doctor(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "[/red][bold]2\x1b[2J")

    outcome = command("doctor", "CartPole-v1")

    assert outcome.code == 0
    assert "OMP_NUM_THREADS=[/red][bold]2\\x1b[2J is set" in " ".join(outcome.out.split())
