"""Returns and lengths of finished episodes, from raw rewards on the host."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 4096
"""Rows that wait to be summed up, at most."""


class EpisodeTracker:
    """Sums raw rewards per environment over valid rows until the game ends.

    A row is only kept when it comes; rows are summed up together when somebody asks.
    """

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._finished: list[tuple[int, float, int]] = []

    def add(
        self,
        rewards: NDArray[Any],
        valid: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        lost: NDArray[np.bool_] | None = None,
    ) -> None:
        """Adds one row of N environments; the arrays must not change afterwards.

        Args:
            rewards: [N] raw; what stands in an invalid row is ignored.
            valid: [N] the row is a transition.
            ended: [N] the game is over or was cut by its time limit; it counts in valid rows and
                in those that were lost.
            lost: [N] the row was a step and is invalid because a number in it was not finite.
        """
        closes = ended & (valid if lost is None else valid | lost)
        self._rows.append((rewards, valid, closes))
        if len(self._rows) >= MOST_ROWS:
            self._sum_up()

    def drain(self) -> list[tuple[int, float, int]]:
        """(environment, return, length) of the episodes finished since the last call."""
        self._sum_up()
        finished, self._finished = self._finished, []
        return finished

    def _sum_up(self) -> None:
        if not self._rows:
            return
        rewards, valid, closes = map(np.stack, zip(*self._rows, strict=True))  # [T, N] each
        self._rows = []
        # sums since the first of these rows, with what was open before
        returns = self._returns + np.cumsum(np.where(valid, rewards, 0), 0, dtype=np.float64)
        lengths = self._lengths + np.cumsum(valid, 0)
        before = np.zeros_like(self._returns), np.zeros_like(self._lengths)
        for step, env in np.argwhere(closes):
            total, length = returns[step, env], lengths[step, env]
            closed = (int(env), float(total - before[0][env]), int(length - before[1][env]))
            self._finished.append(closed)
            before[0][env], before[1][env] = total, length
        self._returns, self._lengths = returns[-1] - before[0], lengths[-1] - before[1]
