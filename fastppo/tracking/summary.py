"""The numbers that sum up a run, gathered from its metrics row by row; standard library only."""

from array import array
from typing import Any

from fastppo.returns import ReturnWindow


class RunSummary:
    """Rates, final return and the way to a threshold.

    Args:
        threshold: return that counts as solved; None where nobody named one.
    """

    def __init__(self, threshold: float | None = None) -> None:
        self._threshold = threshold
        self._reached: dict[str, float] = {}
        self._steps = array("d")
        self._seconds = array("d")
        self._window = ReturnWindow()

    def add(self, row: dict[str, Any]) -> None:
        """Takes one update's metrics."""
        if "env_steps" not in row or "time/total" not in row:
            return
        self._steps.append(row["env_steps"])
        self._seconds.append(row["time/total"])
        self._window.add(row.get("episode/count") or 0, row.get("episode/return"))
        if self._threshold is None or self._reached or not self._window.is_at(self._threshold):
            return
        self._reached = {
            "steps_to_threshold": row["global_step"],
            "seconds_to_threshold": row["wall_time"],
        }

    def values(self) -> dict[str, Any]:
        """Rates in env steps/s, over all updates and over the second half of them; the return.

        A run that did not reach its threshold has `threshold_reached` false and no time to it.
        """
        half = len(self._steps) // 2
        found: dict[str, Any] = {
            "total_env_steps_per_s": _rate(self._steps, self._seconds),
            "steady_env_steps_per_s": _rate(self._steps[half:], self._seconds[half:]),
            "final_return": self._window.mean,
        }
        if self._threshold is not None:
            found |= {"threshold": self._threshold, "threshold_reached": bool(self._reached)}
        return {key: value for key, value in (found | self._reached).items() if value is not None}


def _rate(steps: "array[float]", seconds: "array[float]") -> float | None:
    total = sum(seconds)
    return sum(steps) / total if total > 0 else None
