"""The return of a run, and when a task counts as solved: one window and one table for everybody.

Standard library only: the process that owns W&B imports it.
"""

from collections import deque
from dataclasses import dataclass

WINDOW = 100
"""Games behind a return: as many as Gymnasium means by its thresholds."""
GYMNASIUM, OURS = "Gymnasium's registry", "fastppo's own"


class ReturnWindow:
    """Mean return of the last WINDOW games, rounded up to whole updates: their means are known."""

    def __init__(self) -> None:
        self._updates: deque[tuple[int, float]] = deque()  # games and their mean, oldest first
        self._games = 0

    def add(self, games: int, mean: float | None) -> None:
        """Takes one update; a count without a mean says nothing about how the games went."""
        if games and mean is not None:
            self._updates.append((games, mean))
            self._games += games
        while self._updates and self._games - self._updates[0][0] >= WINDOW:
            self._games -= self._updates.popleft()[0]

    @property
    def mean(self) -> float | None:
        """None before the first game has ended."""
        if not self._games:
            return None
        return sum(games * mean for games, mean in self._updates) / self._games

    def is_at(self, threshold: float) -> bool:
        """Whether the mean is at the threshold; never before WINDOW games have ended."""
        mean = self.mean
        return mean is not None and self._games >= WINDOW and mean >= threshold


@dataclass(frozen=True, slots=True)
class Threshold:
    """A return that counts as solved, and who says so."""

    value: float
    source: str

    def facts(self) -> dict[str, float | str]:
        """For the settings of a W&B run: what `steps_to_threshold` there refers to."""
        return {
            "threshold": self.value,
            "threshold_source": self.source,
            "threshold_window": WINDOW,
        }


def threshold_of(env_id: str) -> Threshold | None:
    """The return at which a task counts as solved; None where nobody has named one."""
    return THRESHOLDS.get(env_id)


# Where Gymnasium registers a return as solved, that. For the rest a round number that a correct PPO
# passes while it still climbs, below the final return that CleanRL's benchmark reports for the
# papers' recipe (1M env steps on MuJoCo v4, 10M on Atari; in brackets).
THRESHOLDS = {
    "CartPole-v0": Threshold(195.0, GYMNASIUM),
    "CartPole-v1": Threshold(475.0, GYMNASIUM),
    "phys2d/CartPole-v0": Threshold(195.0, GYMNASIUM),
    "phys2d/CartPole-v1": Threshold(475.0, GYMNASIUM),
    "Acrobot-v1": Threshold(-100.0, GYMNASIUM),
    "MountainCar-v0": Threshold(-110.0, GYMNASIUM),
    "MountainCarContinuous-v0": Threshold(90.0, GYMNASIUM),
    # an agent holds the pole up but wobbles (docs/results.md: -179)
    "Pendulum-v1": Threshold(-250.0, OURS),
    # Gymnasium before 1.0
    "LunarLander-v2": Threshold(200.0, GYMNASIUM),
    "LunarLanderContinuous-v2": Threshold(200.0, GYMNASIUM),
    "LunarLander-v3": Threshold(200.0, GYMNASIUM),
    "LunarLanderContinuous-v3": Threshold(200.0, GYMNASIUM),
    "BipedalWalker-v3": Threshold(300.0, GYMNASIUM),
    "BipedalWalkerHardcore-v3": Threshold(300.0, GYMNASIUM),
    "CarRacing-v3": Threshold(900.0, GYMNASIUM),
    "Ant-v4": Threshold(6000.0, GYMNASIUM),
    "Ant-v5": Threshold(6000.0, GYMNASIUM),
    "HalfCheetah-v4": Threshold(4800.0, GYMNASIUM),
    "HalfCheetah-v5": Threshold(4800.0, GYMNASIUM),
    "Hopper-v4": Threshold(3800.0, GYMNASIUM),
    "Hopper-v5": Threshold(3800.0, GYMNASIUM),
    "InvertedPendulum-v4": Threshold(950.0, GYMNASIUM),
    "InvertedPendulum-v5": Threshold(950.0, GYMNASIUM),
    "InvertedDoublePendulum-v4": Threshold(9100.0, GYMNASIUM),
    "InvertedDoublePendulum-v5": Threshold(9100.0, GYMNASIUM),
    "Pusher-v4": Threshold(0.0, GYMNASIUM),
    "Pusher-v5": Threshold(0.0, GYMNASIUM),
    "Reacher-v4": Threshold(-3.75, GYMNASIUM),
    "Reacher-v5": Threshold(-3.75, GYMNASIUM),
    "Swimmer-v4": Threshold(360.0, GYMNASIUM),
    "Swimmer-v5": Threshold(360.0, GYMNASIUM),
    "Humanoid-v4": Threshold(600.0, OURS),  # 716
    "Walker2d-v4": Threshold(2000.0, OURS),  # 2288
    "Pong-v5": Threshold(18.0, OURS),  # 20.4
    "Breakout-v5": Threshold(300.0, OURS),  # 430
    "BeamRider-v5": Threshold(1900.0, OURS),  # 2478
    "SpaceInvaders-v5": Threshold(900.0, OURS),  # 1189
    "Qbert-v5": Threshold(13_000.0, OURS),  # 17246
    "Seaquest-v5": Threshold(1000.0, OURS),  # 1240
    "Enduro-v5": Threshold(900.0, OURS),  # 1297
    "MsPacman-v5": Threshold(1800.0, OURS),  # 2346
    "Boxing-v5": Threshold(80.0, OURS),  # 92.7
    "Freeway-v5": Threshold(28.0, OURS),  # 33.1
}
