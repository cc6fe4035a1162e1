"""One training run of one seed in the tree of a side: what it ended at, and when it got there."""

from collections import deque
from dataclasses import replace
from statistics import mean
from typing import Any

LAST = 0.2
"""Part of the steps whose games are the final return."""
GAMES = 20
"""Of the last ones, whose mean is held against the threshold."""


def run(env_id: str, seed: int, timesteps: int, threshold: float) -> dict[str, Any]:
    """Trains by the preset.

    Returns:
        final: mean return of the games that ended in the last part of the run.
        steps: at which the mean of the last games was at the threshold; all of them if never.
    """
    from fastppo.bench.recipes import config_for
    from fastppo.trainer import Trainer

    config = replace(config_for(env_id, "paper", seed=seed), total_timesteps=timesteps)
    trainer = Trainer(config)
    games: deque[float] = deque(maxlen=GAMES)
    final: list[float] = []
    steps = timesteps
    try:
        while trainer.update < config.num_updates:
            row = trainer.run_update()
            if "episode/return" not in row:
                continue
            games += [row["episode/return"]] * row["episode/count"]
            if len(games) == GAMES and mean(games) >= threshold:
                steps = min(steps, row["global_step"])
            if row["global_step"] > (1 - LAST) * timesteps:
                final += [row["episode/return"]] * row["episode/count"]
    finally:
        trainer.close()
    # without a game to its end, the last one is all that there is
    return {"final": mean(final or games or [0.0]), "steps": steps}
