"""Rounds of slices over the settings of one environment, and what they say."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fastppo import threads
from fastppo.bench.launch.pools import (
    PoolSlice,
    Setting,
    Stepper,
    bytes_per_env,
    open_pool,
)
from fastppo.bench.results.intervals import Interval, median_interval
from fastppo.config import Config
from fastppo.errors import Interrupted
from fastppo.limits import available_bytes
from fastppo.presets import PRESETS, preset_for
from fastppo.signals import StopRequest
from fastppo.tasks import EnvSpec, describe, spec_of

MEMORY_SHARE = 0.5
"""Part of the free memory that pools may fill."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What N environments can do, and what `fastppo train` would do with them."""

    plan: Setting
    torch_threads: int
    best: Setting
    best_sync: Setting
    """The best that a synchronous trainer can use."""
    gain: Interval | None
    """best_sync over plan; None where they are one."""
    async_gain: Interval | None
    """best over best_sync; None where they are one."""


@dataclass(slots=True)
class Grid:
    """One environment, measured: position i of every list of slices is round i."""

    config: Config
    spec: EnvSpec
    slices: dict[Setting, list[PoolSlice]]
    failures: list[dict[str, str]] = field(default_factory=list)

    def rate(self, setting: Setting) -> Interval:
        """Median env steps/s with its interval."""
        return median_interval([s.env_steps_per_s for s in self.slices[setting]])

    def ratio(self, setting: Setting, over: Setting, confidence: float = 0.95) -> Interval:
        """How many times faster a setting is than another, from pairs of one round."""
        pairs = zip(self.slices[setting], self.slices[over], strict=False)
        ratios = [a.env_steps_per_s / b.env_steps_per_s for a, b in pairs]
        return median_interval(ratios, confidence)

    def measured(self, num_envs: int) -> list[Setting]:
        """Settings of so many environments that have a slice."""
        return [s for s in self.slices if s.num_envs == num_envs and self.slices[s]]

    def advice(self) -> list[Advice]:
        """One for each number of environments whose plan was measured."""
        found = []
        for num_envs in dict.fromkeys(setting.num_envs for setting in self.slices):
            plan, torch_threads = plan_of(self.config, num_envs)
            settings = self.measured(num_envs)
            if plan not in settings:  # interrupted before its first turn, or no memory
                continue
            sync = [s for s in settings if not s.is_async]
            best = max(settings, key=lambda s: self.rate(s).value)
            best_sync = max(sync, key=lambda s: self.rate(s).value)
            # the winner of k was picked for being high: its interval must hold for all k
            wide = 1.0 - 0.05 / len(settings)
            gain = None if best_sync == plan else self.ratio(best_sync, plan, wide)
            async_gain = None if best == best_sync else self.ratio(best, best_sync, wide)
            found.append(Advice(plan, torch_threads, best, best_sync, gain, async_gain))
        return found

    def entries(self) -> list[dict[str, Any]]:
        """Entries of a result file's `results`."""
        plans = {advice.plan: advice for advice in self.advice()}
        best = {advice.best for advice in plans.values()}
        return [
            {
                "id": f"env/{self.config.env_id}/{setting.name}",
                "impl": "envpool",
                "unit": "env_steps/s",
                "better": "higher",
                "clock": "wall",
                "launches": [
                    {
                        "order": 0,
                        "samples": [s.env_steps_per_s for s in slices],
                        "seconds": [s.seconds for s in slices],
                        "env_steps": [s.env_steps for s in slices],
                        "rows": [s.rows for s in slices],
                    }
                ],
                "env": {
                    "env_id": self.config.env_id,
                    **asdict(setting),
                    "mode": "async" if setting.is_async else "sync",
                    "frame_skip": self.spec.frame_skip,
                    "env_steps_per_s": asdict(self.rate(setting)),
                    "frames_per_s": self.rate(setting).value * self.spec.frame_skip,
                    "is_train_plan": setting in plans,
                    "torch_threads": plans[setting].torch_threads if setting in plans else None,
                    "is_best": setting in best,
                    "advice": asdict(plans[setting]) if setting in plans else None,
                },
            }
            for setting, slices in self.slices.items()
            if slices
        ]


def config_of(env_id: str, num_envs: int | None = None) -> Config:
    """What `fastppo train ENV_ID [--num-envs N]` would run."""
    settings = dict(PRESETS[preset_for(describe(env_id))])
    settings["num_envs"] = num_envs or settings["num_envs"]
    rows = settings["num_envs"] * settings["num_steps"]
    settings["total_timesteps"] = max(settings["total_timesteps"], rows)
    return Config(env_id=env_id, **settings)


def plan_of(config: Config, num_envs: int) -> tuple[Setting, int]:
    """The setting that `fastppo train` steps so many environments with, and its torch threads."""
    config = config_of(config.env_id, num_envs)
    plan = threads.plan(config, spec_of(config))
    env_threads = min(plan.env_threads, num_envs)  # as `make_pool` has it
    return Setting(num_envs, num_envs, env_threads), plan.torch_threads


def measure(
    config: Config, settings: Sequence[Setting], *, seconds: float, rounds: int, stop: StopRequest
) -> Grid:
    """Takes turns until every setting has `rounds` slices, or until stopped.

    Args:
        seconds: of all slices together.

    Returns:
        What was measured; after a stop fewer slices. `stop` still knows that it was asked.
    """
    grid = Grid(config, spec_of(config), {setting: [] for setting in settings})
    per_slice = seconds / (rounds * len(settings))
    order = random.Random(config.seed)
    try:
        for group in _fitting(grid, settings):
            steppers: list[Stepper] = []
            try:
                for setting in group:
                    stop.check()  # an Atari pool takes seconds to reset
                    steppers.append(Stepper(open_pool(config, setting), setting, seed=config.seed))
                for _ in range(rounds):
                    order.shuffle(steppers)
                    for stepper in steppers:
                        stop.check()
                        grid.slices[stepper.setting].append(stepper.run(per_slice))
            finally:
                for stepper in steppers:
                    stepper.close()
    except Interrupted:
        pass
    return grid


def _fitting(grid: Grid, settings: Sequence[Setting]) -> list[list[Setting]]:
    """Settings whose pools fit into memory together: all, or those of one number of environments.

    What does not fit even so goes to `grid.failures`.
    """
    per_env, budget = bytes_per_env(grid.config), MEMORY_SHARE * available_bytes()
    if per_env * sum(s.num_envs for s in settings) <= budget:
        return [list(settings)]
    groups = []
    for num_envs in dict.fromkeys(s.num_envs for s in settings):
        group = [s for s in settings if s.num_envs == num_envs]
        need = per_env * num_envs * len(group)
        if need <= budget:
            groups.append(group)
            continue
        reason = f"{len(group)} pools need {need / 2**30:.1f} GB, {budget / 2**30:.1f} GB are free"
        grid.failures += [
            {"id": f"env/{grid.config.env_id}/{s.name}", "impl": "envpool", "reason": reason}
            for s in group
        ]
    return groups
