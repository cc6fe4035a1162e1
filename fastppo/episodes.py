"""Returns and lengths of finished episodes, from raw rewards on the host."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class EpisodeTracker:
    """Sums raw rewards per environment over valid rows until the game ends."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._finished: list[tuple[int, float, int]] = []

    def add(
        self, rewards: NDArray[Any], valid: NDArray[np.bool_], ended: NDArray[np.bool_]
    ) -> None:
        """Adds one row of N environments; `ended` closes the episodes it marks (valid rows only).

        Args:
            rewards: [N] raw; what stands in an invalid row is ignored.
            valid: [N] the row is a transition.
            ended: [N] the game is over or was cut by its time limit.
        """
        self._returns[valid] += rewards[valid]
        self._lengths += valid
        self.close(ended & valid)

    def close(self, ended: NDArray[np.bool_]) -> None:
        """Closes the episodes of the environments [N] that `ended` marks, with what they have."""
        for env in np.flatnonzero(ended):
            self._finished.append((int(env), float(self._returns[env]), int(self._lengths[env])))
            self._returns[env] = 0.0
            self._lengths[env] = 0

    def drain(self) -> list[tuple[int, float, int]]:
        """(environment, return, length) of the episodes finished since the last call."""
        finished, self._finished = self._finished, []
        return finished
