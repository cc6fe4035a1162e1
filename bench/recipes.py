"""What `fastppo bench` trains: the standard set, and the settings of each task."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.presets import PRESETS, preset_for
from fastppo.tasks import describe

STANDARD = ("CartPole-v1", "HalfCheetah-v4", "Ant-v4", "Pong-v5", "Breakout-v5")
QUICK = ("CartPole-v1", "HalfCheetah-v4", "Pong-v5")
RECIPES = ("paper", "wide")
# Many environments in one step: what the machine does best. Rows as the family's memory allows.
WIDE: dict[str, dict[str, Any]] = {
    "classic": {"num_envs": 64, "num_steps": 128},
    "classic-continuous": {"num_envs": 64, "num_steps": 128},
    "mujoco": {"num_envs": 64, "num_steps": 64, "num_minibatches": 4},
    "atari": {"num_envs": 64, "num_steps": 32},
}
# One short update each: CI has a minute per environment.
BRIEF: dict[str, dict[str, Any]] = {
    "HalfCheetah-v4": {"num_envs": 64, "num_steps": 64, "num_minibatches": 4},
    "Pong-v5": {"num_envs": 8, "num_steps": 16},
}
SIZE = re.compile(r"(\d+)x(\d+)")
ENDLESS = 10**9
"""Env steps: so far away that annealing does not move while rates are measured."""


def config_for(
    env_id: str, recipe: str, *, seed: int = 1, device: str = "auto", brief: bool = False
) -> Config:
    """The settings of one benchmark.

    Args:
        recipe: `paper`, the preset that `fastppo train` picks, after the papers that
            fastppo/presets.py names; `wide`; or NxT, such as 8x128: that many environments and
            steps, the rest as the preset.

    Raises:
        UserError: unknown environment or recipe, or sizes that do not divide.
    """
    preset = preset_for(describe(env_id))
    settings: dict[str, Any] = dict(PRESETS[preset])
    size = SIZE.fullmatch(recipe)
    if recipe == "wide":
        settings |= WIDE[preset]
    elif size is not None:
        settings |= {"num_envs": int(size[1]), "num_steps": int(size[2])}
    elif recipe != "paper":
        known = f"{', '.join(RECIPES)}, and NxT such as 8x128"
        raise UserError(f"--recipe: {recipe!r} is unknown; there are {known}")
    if brief:
        settings |= BRIEF.get(env_id, {})
    settings |= {"total_timesteps": ENDLESS, "seed": seed, "device": device}
    try:
        return Config(env_id=env_id, **settings | {"preset": preset})
    except UserError as error:
        raise UserError(f"--recipe: {recipe}: {error}") from None


def label(config: Config) -> str:
    """How tables and files name the sizes: 8x128 for 8 environments and 128 steps."""
    return f"{config.num_envs}x{config.num_steps}"


def with_steps(config: Config, total_timesteps: int) -> Config:
    """The same work, up to an end: what learning is measured on.

    Raises:
        UserError: fewer steps than one rollout.
    """
    return replace(config, total_timesteps=total_timesteps)


def workloads(
    env_ids: Sequence[str],
    recipes: Sequence[str],
    *,
    seed: int = 1,
    device: str = "auto",
    brief: bool = False,
) -> list[Config]:
    """Every environment in every recipe, each size once.

    Args:
        env_ids: empty for the standard set, or with `brief` for QUICK.
        recipes: empty for paper and wide if no environment was named, else for paper.
    """
    chosen = recipes or (RECIPES if not env_ids and not brief else ("paper",))
    names = env_ids or (QUICK if brief else STANDARD)
    found: dict[str, Config] = {}
    for env_id in names:
        for recipe in chosen:
            config = config_for(env_id, recipe, seed=seed, device=device, brief=brief)
            found.setdefault(f"{env_id}/{label(config)}", config)
    return list(found.values())
