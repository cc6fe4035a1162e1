"""The thread plan: what is set wins, otherwise cores are divided by the kind of work."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from fastppo import cgroups, devices, threads
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.tasks import describe


@pytest.fixture
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "available_cores", lambda: 4)


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


@pytest.mark.usefixtures("_four_cores")
def test_beside_a_gpu_torch_gets_one_thread(tiny: Callable[..., Config]) -> None:
    """With all cores its idle threads spin: on an H200 the copy of a row took six times as long."""
    made = threads.plan(tiny(env_id="Pong-v5", num_envs=8, device="cuda"), describe("Pong-v5"))

    assert dataclasses.astuple(made) == (4, 1)


def test_precision_is_a_gpus(tiny: Callable[..., Config]) -> None:
    cpu = torch.device("cpu")
    assert devices.set_precision(tiny(), cpu, images=True) == "float32"
    with pytest.raises(UserError, match="precision: 'tf32' is a GPU's"):
        devices.set_precision(tiny(precision="tf32"), cpu, images=True)
