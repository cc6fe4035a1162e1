"""Settings are checked where they are made; each message names field, value and remedy."""

import json
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from fastppo import presets
from fastppo.config import Config, Options
from fastppo.errors import UserError
from fastppo.tasks import describe

NAN, INF = math.nan, math.inf
# field, value, what the message must say after naming both
WRONG: list[tuple[str, Any, str]] = [
    ("env_id", "", "must name a task"),
    ("preset", "fast", "must be one of auto, classic, classic-continuous, mujoco, atari"),
    ("seed", -1, "must not be negative"),
    ("seed", 2**63, "must be below 2**63"),
    ("seed", 1.5, "must be int"),
    ("total_timesteps", 0, "must be above 0"),
    ("total_timesteps", -5, "must be above 0"),
    ("num_envs", 0, "must be above 0"),
    ("num_envs", True, "must be int"),
    ("num_envs", "8", "must be int"),
    ("num_steps", 0, "must be above 0"),
    ("num_steps", 32.0, "must be int"),
    ("num_minibatches", 0, "must be above 0"),
    ("update_epochs", 0, "must be above 0"),
    ("learning_rate", 0.0, "must be above 0"),
    ("learning_rate", -1e-3, "must be above 0"),
    ("learning_rate", NAN, "must be a finite number"),
    ("learning_rate", INF, "must be a finite number"),
    ("learning_rate", "fast", "must be float"),
    ("anneal_lr", 1, "must be bool"),
    ("adam_eps", 0.0, "must be above 0"),
    ("gamma", NAN, "must be a finite number"),
    ("gamma", -0.1, "must be in [0, 1]"),
    ("gamma", 1.1, "must be in [0, 1]"),
    ("gae_lambda", 1.5, "must be in [0, 1]"),
    ("gae_lambda", -INF, "must be a finite number"),
    ("clip_coef", -0.1, "must not be negative"),
    ("clip_coef", NAN, "must be a finite number"),
    ("dual_clip", 1.0, "must be above 1"),
    ("dual_clip", NAN, "must be a finite number"),
    ("ent_coef", -0.01, "must not be negative"),
    ("vf_coef", -0.5, "must not be negative"),
    ("max_grad_norm", -1.0, "must not be negative"),
    ("max_grad_norm", INF, "must be a finite number"),
    ("target_kl", 0.0, "must be above 0"),
    ("target_kl", -0.1, "must be above 0"),
    ("network", "resnet", "must be one of auto, mlp, nature_cnn"),
    ("hidden_sizes", (), "must be one or more widths above 0"),
    ("hidden_sizes", (64, 0), "must be one or more widths above 0"),
    ("hidden_sizes", (64, 1.5), "must be a tuple of int"),
    ("hidden_sizes", 64, "must be a tuple of int"),
    ("activation", "gelu", "must be one of tanh, relu, elu, silu"),
    ("log_std_init", NAN, "must be a finite number"),
    ("obs_clip", 0.0, "must be above 0"),
    ("reward_clip", -10.0, "must be above 0"),
    ("max_episode_steps", 0, "must be above 0"),
    ("max_episode_steps", 1.5, "must be int or None"),
    ("noop_max", -1, "must not be negative"),
    ("frame_skip", 0, "must be above 0"),
    ("frame_stack", 0, "must be above 0"),
    ("repeat_action_probability", 1.1, "must be in [0, 1]"),
    ("backend", "cuda", "must be one of auto, triton, numba, torch"),
    ("engine", "fast", "must be one of auto, eager, graph, mlp"),
    ("precision", "bf16", "must be one of auto, float32, tf32"),
    ("env_threads", -1, "must not be negative"),
    ("torch_threads", -1, "must not be negative"),
    ("eval_interval", -1, "must not be negative"),
    ("eval_episodes", 0, "must be above 0"),
    ("checkpoint_interval", 0, "must be above 0"),
    ("keep_checkpoints", 0, "must be above 0"),
    ("max_skipped_steps", 0, "must be above 0"),
    ("wandb", "on", "must be one of auto, online, offline, disabled"),
    ("wandb_entity", 3, "must be str or None"),
    ("wandb_name", 3, "must be str or None"),
    ("wandb_group", (), "must be str or None"),
    ("wandb_tags", ("a", 1), "must be a tuple of str"),
    ("metric_names", "rllib", "must be one of fastppo, cleanrl, sb3"),
]
# a text, a flag or a name that any value of its type suits
UNCHECKED = {
    "norm_adv", "anneal_clip", "clip_vloss", "shared_trunk", "norm_obs", "norm_reward",
    "sign_reward", "episodic_life", "fire_reset", "device", "wandb_project", "tensorboard",
}  # fmt: skip


@pytest.mark.parametrize(("field", "value", "remedy"), WRONG)
def test_wrong_value_is_refused_by_name(field: str, value: Any, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        Config(**({"env_id": "CartPole-v1"} | {field: value}))

    assert str(caught.value) == f"{field}: {value!r} {remedy}"


def test_every_field_that_can_be_wrong_is_tried_above() -> None:
    tried = {field for field, _, _ in WRONG}

    assert tried | UNCHECKED == {field.name for field in fields(Config)}
    assert tried & UNCHECKED == set()


@pytest.mark.parametrize(
    ("num_minibatches", "divisor"), [(3, 2), (7, 8), (100, 128), (1023, 1024), (10**15, 1024)]
)
def test_minibatches_that_do_not_divide_are_refused_with_the_nearest_divisor(
    num_minibatches: int, divisor: int
) -> None:
    with pytest.raises(UserError) as caught:
        Config(env_id="CartPole-v1", num_envs=8, num_steps=128, num_minibatches=num_minibatches)

    assert str(caught.value) == (
        f"num_minibatches: {num_minibatches} does not divide num_envs * num_steps = 8 * 128 = 1024;"
        f" choose a divisor, such as {divisor}"
    )
    assert 1024 % divisor == 0


def test_fewer_steps_than_one_rollout_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        Config(env_id="CartPole-v1", num_envs=8, num_steps=128, total_timesteps=1023)

    assert str(caught.value) == (
        "total_timesteps: 1023 is less than one rollout (num_envs * num_steps = 8 * 128 = 1024);"
        " raise it, or lower num_steps or num_envs"
    )


def test_sizes_are_derived_and_only_whole_updates_count() -> None:
    config = Config(
        env_id="X", num_envs=3, num_steps=8, num_minibatches=4, total_timesteps=24 * 5 + 23
    )

    assert (config.batch_size, config.minibatch_size, config.num_updates) == (24, 6, 5)


def test_config_comes_back_equal_from_json(tiny: Callable[..., Config]) -> None:
    config = tiny(hidden_sizes=(5, 6, 7), target_kl=0.01, dual_clip=3.0, max_episode_steps=9)

    restored = Config.from_dict(json.loads(json.dumps(config.to_dict())))

    assert restored == config
    assert restored.hidden_sizes == (5, 6, 7)


@pytest.mark.parametrize("change", [{"gama": 0.9}, {"gamma": None}])
def test_unknown_or_missing_fields_are_named(
    change: dict[str, Any], tiny: Callable[..., Config]
) -> None:
    values = tiny().to_dict() | change
    if change.get("gamma", 0) is None:
        del values["gamma"]

    with pytest.raises(UserError, match=rf"unknown or missing fields \['{next(iter(change))}'\]"):
        Config.from_dict(values)


def test_config_cannot_be_changed(tiny: Callable[..., Config]) -> None:
    with pytest.raises(FrozenInstanceError):
        tiny().gamma = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("env_id", "preset"),
    [
        ("CartPole-v1", "classic"),
        ("LunarLander-v2", "classic"),
        ("Pendulum-v1", "classic-continuous"),
        ("Hopper-v4", "mujoco"),
        ("BipedalWalker-v3", "mujoco"),
        ("Pong-v5", "atari"),
    ],
)
def test_preset_follows_the_kind_of_environment_and_is_valid(env_id: str, preset: str) -> None:
    assert presets.preset_for(describe(env_id)) == preset

    config = Config(env_id=env_id, preset=preset, **presets.PRESETS[preset])  # type: ignore[arg-type]

    assert config.num_updates > 100


def test_presets_are_those_that_can_be_named() -> None:
    assert {"auto", *presets.PRESETS} == set(Options.__annotations__["preset"].__args__)
