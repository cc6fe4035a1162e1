"""The settings of `fastppo tokens`: every field that can be wrong is refused by name."""

import json
from dataclasses import fields
from typing import Any

import pytest

from fastppo.config import Config, Options, RunOptions
from fastppo.errors import UserError
from fastppo.token_config import (
    TASKS,
    TokenConfig,
    TokenOptions,
    command_of,
    config_from,
    task_name,
)
from fastppo.tracking.wandb_names import config_hash

WRONG = [
    ("env_id", "tokens/none", "must be one of tokens/bandit, tokens/reverse, tokens/lipogram"),
    ("temperature", 0.0, "must be above 0"),
    ("clip_coef_high", -0.1, "must not be negative"),
    ("reduction", "mean", "must be one of token, sequence, sequence_sum, constant"),
    ("kl_coef", -1.0, "must not be negative"),
    ("kl_estimator", "k1", "must be one of k1_reward, k2, k3, k3_is"),
    ("padding", "both", "must be one of left, right"),
    ("text", "a.txt", "is not for reverse, which makes its own; leave it out"),
    ("model", 3, "must be str or None"),
    ("layers", 0, "must be above 0"),
    ("width", -8, "must be above 0"),
    ("heads", 3, "does not divide width = 128"),
    ("context", 0, "must be above 0"),
    ("pretrain_steps", -1, "must not be negative"),
    ("pretrain_rows", 0, "must be above 0"),
    ("pretrain_learning_rate", 0.0, "must be above 0"),
    ("sample_interval", -1, "must not be negative"),
    ("num_minibatches", 3, "does not divide num_envs * num_steps = 256 * 7 = 1792; choose a "
     "divisor, such as 2"),
    ("num_minibatches", 7, "does not divide num_envs = 256; choose a divisor"),
    ("gamma", 1.5, "must be in [0, 1]"),
]  # fmt: skip


def make(**changes: Any) -> TokenConfig:
    return TokenConfig(**{"env_id": "tokens/reverse"} | TASKS["tokens/reverse"] | changes)


@pytest.mark.parametrize(("field", "value", "remedy"), WRONG)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        make(**{field: value})

    assert str(caught.value) == f"{field}: {value!r} {remedy}"


def test_every_field_of_its_own_is_tried_above() -> None:
    shared = {one.name for one in fields(RunOptions)}
    own = {one.name for one in fields(TokenOptions)} - shared

    assert own <= {field for field, _, _ in WRONG}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_named_in_short_or_in_full_and_its_defaults_are_valid(task: str) -> None:
    assert task_name(task) == task_name(task.removeprefix("tokens/")) == task

    assert TokenConfig(env_id=task, **TASKS[task]).num_updates > 10


def test_a_config_comes_back_as_the_kind_that_it_is() -> None:
    ours, control = make(kl_coef=0.2), Config(env_id="CartPole-v1")

    for config in (ours, control):
        assert config_from(json.loads(json.dumps(config.to_dict()))) == config
    assert (command_of(ours.env_id), command_of(control.env_id)) == ("tokens", "train")


def test_the_upper_clip_range_is_annealed_with_the_lower() -> None:
    config = make(clip_coef=0.2, clip_coef_high=0.3, anneal_clip=True)

    assert config.clip_range_at(0) == pytest.approx((0.2, 0.3))
    assert config.clip_range_at(config.num_updates // 2) == pytest.approx((0.1, 0.15))
    assert make(clip_coef=0.2).clip_range_at(0) == (0.2, 0.2)
    assert make(clip_coef=0.0, clip_coef_high=0.3).clip_range_at(0) == (0.0, 0.3)


def test_what_differs_tells_two_settings_apart_and_a_control_task_knows_nothing_of_it() -> None:
    assert config_hash(make().to_dict()) == config_hash(make(sample_interval=7).to_dict())
    assert config_hash(make().to_dict()) != config_hash(make(kl_coef=0.5).to_dict())
    control = Config(env_id="CartPole-v1").to_dict()
    usual = {one.name: one.default for one in fields(Options)}
    assert {name for name in control if control[name] != usual[name]} == {"env_id"}
