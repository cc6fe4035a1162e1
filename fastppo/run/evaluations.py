"""Evaluations while a run trains: in environments of their own, off the clock."""

from contextlib import suppress
from typing import Any

from fastppo import checkpoint
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.own_envs import OwnEnvs
from fastppo.run.evaluate import evaluate
from fastppo.run.rundir import RunDir

LOGGED = ("mean_return", "std_return", "mean_length", "episodes")


class Evaluations:
    """Every `eval_interval` updates what `fastppo eval` would say, with the run's seed.

    Args:
        own: environments to play in, where they are not EnvPool's.
    """

    def __init__(self, run: RunDir, config: Config, own: OwnEnvs | None) -> None:
        self._run = run
        self._config = config
        self._own = own
        self._best = float("-inf")
        if config.eval_interval:
            # of a run that is resumed; a damaged one is written anew
            with suppress(UserError):
                self._best = checkpoint.load(checkpoint.best(run.checkpoints))["mean_return"]

    def is_due(self, update: int) -> bool:
        """Whether the policy after so many updates is evaluated; the last one always is."""
        interval = self._config.eval_interval
        return interval > 0 and (update % interval == 0 or update == self._config.num_updates)

    def now(self, state: dict[str, Any]) -> dict[str, float]:
        """Evaluates a trainer's state, and keeps it where nothing returned more so far.

        Raises:
            MachineError: an environment gave no finite step, or the disk is full.
        """
        result = evaluate(
            self._config,
            state,
            episodes=self._config.eval_episodes,
            seed=self._config.seed,
            own=self._own,
        )
        if result["mean_return"] >= self._best:
            self._best = result["mean_return"]
            path = self._run.checkpoints / f"{checkpoint.BEST}.pt"
            checkpoint.save(path, state | {"mean_return": self._best})
        return {f"eval/{name}": result[name] for name in LOGGED}
