"""One step of all environments: decide, step, write. The slow way to collect, for every engine."""

from typing import Any, Protocol

from numpy.typing import NDArray

from fastppo.envs import VecEnv
from fastppo.rollout import Rollout
from fastppo.timing import PhaseTimer


class Actor(Protocol):
    """Who decides."""

    def act(self, rollout: Rollout, t: int, step: int) -> NDArray[Any]:
        """Decides on row t of the rollout; the actions on the host, [N, ...]."""
        ...


def play_one(
    actor: Actor, env: VecEnv, rollout: Rollout, t: int, step: int, timer: PhaseTimer
) -> int:
    """Fills row t of the rollout; on a GPU the observation of row t + 1 is staged.

    Args:
        step: decisions so far.

    Returns:
        1, the rows that were filled.
    """
    with timer.host_phase("policy"):  # it ends when the actions are on the host
        actions = actor.act(rollout, t, step)
    with timer.phase("env"):
        answer = env.step(actions)
    with timer.host_phase("copy"):
        rollout.stage(t, answer)
    return 1
