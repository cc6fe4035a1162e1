"""The gate for numbers that are not finite: nothing behind it, sum or kernel, ever sees one.

A step is not a transition if its reward, the observation that it led to or the one that it was
decided on is not finite. `VecEnv` marks it invalid; what stands in its place here is 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
# BLAS takes a second thread, and wakes it, for a longer product.
SMALL = 10_000


class FiniteGate:
    """Looks at each row of N environments as it arrives.

    `rows` [N] counts the steps of each that were left out.
    """

    def __init__(self, num_envs: int) -> None:
        self.rows: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        # whose newest observation was not finite: nothing can be decided on it
        self._blind: NDArray[np.bool_] = np.zeros(num_envs, np.bool_)
        self._any_blind = False

    def reset(self, obs: NDArray[Any], env_ids: Any = slice(None)) -> NDArray[Any]:
        """First observations, of all environments or of some, with 0 for what is not finite."""
        finite = _is_finite(obs)
        self._blind[env_ids] = ~finite.reshape(len(obs), -1).all(1)
        self._any_blind = bool(self._blind.any())
        return _selected(obs, finite)

    def step(
        self, obs: NDArray[Any], rewards: NDArray[Any], reset: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_] | None]:
        """One row of answers.

        Args:
            reset: [N] the row is an environment's reset, and no step to be lost.

        Returns:
            Observations [N, ...] and rewards [N], with 0 for what is not finite, and which steps
            [N] are lost by it; None where every number is finite.
        """
        if not self._any_blind and _all_finite(obs) and _all_finite(rewards):
            return obs, rewards, None
        finite = _is_finite(rewards)
        lost = self._blind | ~finite
        obs = self.reset(obs)
        lost = (lost | self._blind) & ~reset
        self.rows += lost
        return obs, _selected(rewards, finite), lost

    @property
    def is_blind(self) -> bool:
        """Whether an environment's newest observation was not finite."""
        return self._any_blind

    def warning(self) -> str:
        """What is said, once, where a step was left out."""
        envs = np.flatnonzero(self.rows)
        named = ", ".join(map(str, envs[:5]))
        more = f" and {len(envs) - 5} more" if len(envs) > 5 else ""
        return (
            f"{self.rows.sum()} steps of environment {named}{more} had a reward or observation "
            "that is not finite; such steps are left out of learning, statistics and counts"
        )


def _all_finite(values: NDArray[Any]) -> bool:
    """Whether every number is finite in float32, at the cost of a product where they are few."""
    if values.dtype.kind != "f":
        return True
    # a sum of squares below this has no element beyond float32, and NaN is below nothing
    if values.size <= SMALL and float(np.vdot(values, values)) < LARGEST:
        return True
    return bool(_is_finite(values).all())


def _is_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which numbers float32 holds as finite ones."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, np.bool_)
    with np.errstate(over="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(values.astype(np.float32, copy=False))
    return finite


def _selected(values: NDArray[Any], finite: NDArray[np.bool_]) -> NDArray[Any]:
    return values if finite.all() else np.where(finite, values, np.zeros((), values.dtype))
