"""One training run as its parent saw it: returns against env steps and against wall time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastppo.bench.launch.process import Event
from fastppo.returns import ReturnWindow

FIRST_GAMES = 20
"""Games that make the first return."""
FINAL_PART = 0.1
"""Of the env steps: games that end in it make the final return."""


@dataclass(slots=True)
class Curve:
    """What one seed of one implementation did; grows by an entry per update."""

    seed: int
    order: int
    """Its place among all runs of the environment."""
    env_steps: list[int] = field(default_factory=list)
    """Transitions since the start."""
    wall_s: list[float] = field(default_factory=list)
    """Seconds since the process was started, by the parent's clock, pauses left out."""
    returns: list[float | None] = field(default_factory=list)
    """Mean raw return of the games that ended in the update; None where none did."""
    games: list[int] = field(default_factory=list)
    """How many ended in it."""
    ready_s: float = 0.0
    """When everything was built."""
    finished: bool = False
    """False while it runs, and for a run that was cut short."""
    work: dict[str, Any] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Books a line of the implementation."""
        if event.kind == "ready":
            self.ready_s, self.work = event.at, event.values["work"]
            self.info = dict(event.values.get("info") or {})
        elif event.kind == "update":
            mean = event.values.get("return_mean")
            self.env_steps.append(self.total_steps + event.values["env_steps"])
            self.wall_s.append(event.at)
            # a count without a mean says nothing about how they went
            self.games.append(0 if mean is None else event.values.get("episodes", 0))
            self.returns.append(mean if self.games[-1] else None)
        elif event.kind == "tuned":
            self.info["torch_threads"] = event.values.get("torch_threads")

    @property
    def total_steps(self) -> int:
        return self.env_steps[-1] if self.env_steps else 0

    @property
    def total_s(self) -> float:
        return self.wall_s[-1] if self.wall_s else 0.0

    def final_return(self) -> float | None:
        """Mean over the games that ended in the last tenth of the env steps; None if none did."""
        begin = (1.0 - FINAL_PART) * self.total_steps
        return self._mean([i for i, steps in enumerate(self.env_steps) if steps > begin])

    def first_return(self) -> float | None:
        """Mean over the first FIRST_GAMES games, in whole updates: before it has learned."""
        taken: list[int] = []
        count = 0
        for i, games in enumerate(self.games):
            if count >= FIRST_GAMES:
                break
            taken.append(i)
            count += games
        return self._mean(taken)

    def reached(self, threshold: float) -> int | None:
        """The update after which the mean of the last games is at the threshold, or None."""
        window = ReturnWindow()
        for i, (games, mean) in enumerate(zip(self.games, self.returns, strict=True)):
            window.add(games, mean)
            if window.is_at(threshold):
                return i
        return None

    def _mean(self, updates: Sequence[int]) -> float | None:
        count = sum(self.games[i] for i in updates)
        if count == 0:
            return None
        return sum(self.games[i] * (self.returns[i] or 0.0) for i in updates) / count

    def to_dict(self, threshold: float | None) -> dict[str, Any]:
        """One of `curves` of a result file."""
        there = None if threshold is None else self.reached(threshold)
        return {
            "seed": self.seed,
            "env_steps": self.env_steps,
            "wall_s": [round(at, 4) for at in self.wall_s],
            "returns": self.returns,
            "games": self.games,
            "steps_to_threshold": None if there is None else self.env_steps[there],
            "seconds_to_threshold": None if there is None else self.wall_s[there],
            "total_steps": self.total_steps,
            "total_s": self.total_s,
            "ready_s": self.ready_s,
            "finished": self.finished,
            "first_return": self.first_return(),
            "final_return": self.final_return() if self.finished else None,
            "info": self.info,
        }
