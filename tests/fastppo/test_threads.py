"""The thread plan: what is set wins, otherwise cores are divided by the kind of work."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pytest

from fastppo import threads
from fastppo.config import Config
from fastppo.envs import describe


@pytest.fixture
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 4)


@pytest.mark.usefixtures("_four_cores")
@pytest.mark.parametrize(
    ("env_id", "plan"),
    [("CartPole-v1", (1, 1)), ("Hopper-v4", (4, 1)), ("Pong-v5", (4, 4))],
)
def test_small_networks_and_short_steps_get_one_thread(
    env_id: str, plan: tuple[int, int], tiny: Callable[..., Config]
) -> None:
    made = threads.plan(tiny(env_id=env_id, num_envs=8), describe(env_id))

    assert dataclasses.astuple(made) == plan


@pytest.mark.usefixtures("_four_cores")
def test_an_mlp_on_images_needs_no_second_torch_thread(tiny: Callable[..., Config]) -> None:
    made = threads.plan(tiny(env_id="Pong-v5", network="mlp"), describe("Pong-v5"))

    assert made.torch_threads == 1


@pytest.mark.usefixtures("_four_cores")
def test_no_more_environment_threads_than_environments(tiny: Callable[..., Config]) -> None:
    made = threads.plan(tiny(env_id="Hopper-v4", num_envs=2), describe("Hopper-v4"))

    assert made.env_threads == 2


@pytest.mark.usefixtures("_four_cores")
def test_numbers_that_are_set_are_kept(tiny: Callable[..., Config]) -> None:
    config = tiny(env_id="Pong-v5", env_threads=3, torch_threads=2)

    assert dataclasses.astuple(threads.plan(config, describe("Pong-v5"))) == (3, 2)


@pytest.mark.parametrize(
    ("cpu_max", "affinity", "cores"),
    [
        ("max 100000", 8, 8),
        ("250000 100000", 8, 2),
        ("50000 100000", 8, 1),
        ("800000 100000", 4, 4),
        ("junk", 4, 4),
        (None, 4, 4),
    ],
)
def test_cores_are_the_affinity_mask_lowered_by_the_cgroups_quota(
    cpu_max: str | None, affinity: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_open(path: str) -> Any:
        assert path == "/sys/fs/cgroup/cpu.max"
        if cpu_max is None:
            raise FileNotFoundError
        return io.StringIO(cpu_max)

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(threads, "open", fake_open, raising=False)

    assert threads.available_cores() == cores
