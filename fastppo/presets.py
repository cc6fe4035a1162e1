"""Defaults per kind of environment, from the papers and from runs recorded in docs/results.md."""

from typing import Any

from fastppo.tasks import EnvSpec

PRESETS: dict[str, dict[str, Any]] = {
    # Discrete actions, a handful of state variables. Without norm_reward, CartPole's returns of a
    # few hundred swamp the shared gradient norm: one seed in three ended at 260 after 200k steps.
    "classic": dict(
        total_timesteps=500_000, num_envs=8, num_steps=128, num_minibatches=4, update_epochs=4,
        learning_rate=1e-3, clip_vloss=False, ent_coef=0.01, norm_obs=True, norm_reward=True,
    ),
    # Pendulum: every episode ends by time-out, rewards are large and negative.
    "classic-continuous": dict(
        total_timesteps=500_000, num_envs=8, num_steps=128, num_minibatches=4, update_epochs=10,
        learning_rate=1e-3, gamma=0.9, clip_vloss=False, norm_obs=True, norm_reward=True,
    ),
    # The batch of Huang et al. (The 37 implementation details) from 8 environments, in minibatches
    # of 256 rows and not 64, at twice the step size: Walker2d learns faster and costs less.
    "mujoco": dict(
        total_timesteps=1_000_000, num_envs=8, num_steps=256, num_minibatches=8,
        update_epochs=10, learning_rate=6e-4, clip_vloss=False, norm_obs=True, norm_reward=True,
    ),
    # Schulman et al. (arXiv 1707.06347), table 5; preprocessing of Mnih et al. (2015).
    "atari": dict(
        total_timesteps=10_000_000, num_envs=8, num_steps=128, num_minibatches=4,
        update_epochs=4, learning_rate=2.5e-4, clip_coef=0.1, ent_coef=0.01, shared_trunk=True,
        episodic_life=True, sign_reward=True,
    ),
}  # fmt: skip


def preset_for(spec: EnvSpec) -> str:
    """Name of the preset that fits an environment best."""
    if spec.family == "atari":
        return "atari"
    if spec.is_discrete:
        return "classic"
    return "classic-continuous" if spec.family == "classic_control" else "mujoco"
