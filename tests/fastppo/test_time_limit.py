"""An episode that ends on the step of the limit has ended, in every family (issue 10, 20)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastppo.config import Config
from fastppo.envs import VecEnv

NUM_ENVS = 6
FAR = 10_000
TASKS = {
    "CartPole-v1": st.integers(8, 30),
    "Hopper-v4": st.integers(5, 40),
    "LunarLander-v3": st.integers(50, 90),
}


def first_ends(config: Config, limit: int, seed: int, steps: int) -> dict[str, list[int]]:
    """For each environment the step (from 1) on which its first episode terminated, and was cut."""
    env = VecEnv(replace(config, max_episode_steps=limit), range(seed, seed + NUM_ENVS))
    ends = {"terminated": [0] * NUM_ENVS, "truncated": [0] * NUM_ENVS}
    over = np.zeros(NUM_ENVS, np.bool_)
    try:
        env.reset()
        random = np.random.default_rng(seed)
        shape, choices = env.pool.action_space.shape, getattr(env.pool.action_space, "n", None)
        for step in range(1, steps + 1):
            actions: Any
            if choices is None:
                actions = random.uniform(-1, 1, (NUM_ENVS, *shape)).astype(np.float32)
            else:
                actions = random.integers(0, choices, NUM_ENVS)
            result = env.step(actions)
            assert not (result.terminated & result.truncated).any()
            for name in ends:
                for i in np.flatnonzero(getattr(result, name) & ~over):
                    ends[name][i] = step
            over |= result.terminated | result.truncated
    finally:
        env.close()
    return ends


@pytest.mark.parametrize("env_id", TASKS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_ended_and_cut_are_those_of_a_twin_with_a_far_limit(
    env_id: str, data: st.DataObject
) -> None:
    limit = data.draw(TASKS[env_id])
    seed = data.draw(st.integers(0, 2**30))
    config = Config(env_id=env_id, num_envs=NUM_ENVS)

    ours = first_ends(config, limit, seed, limit)
    free = first_ends(config, FAR, seed, limit)["terminated"]

    assert ours["terminated"] == free
    assert ours["truncated"] == [0 if end else limit for end in free]


def test_falls_on_the_step_of_the_limit_are_falls() -> None:
    """CartPole cut after 10 steps: EnvPool calls every fall on the tenth step a cut."""
    config = Config(env_id="CartPole-v1", num_envs=NUM_ENVS)
    on_the_limit = sum(
        first_ends(config, 10, seed, 10)["terminated"].count(10) for seed in range(0, 240, 6)
    )

    assert on_the_limit > 0
