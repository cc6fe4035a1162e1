"""Two tasks learned from scratch by their presets; longer runs are in docs/results.md."""

import pytest

from fastppo import presets
from fastppo.config import Config
from fastppo.run.evaluate import evaluate
from fastppo.tasks import describe
from fastppo.trainer import Trainer


@pytest.mark.parametrize(
    ("env_id", "threshold"),
    [
        ("CartPole-v1", 475.0),
        # every episode ends by time-out: a trainer that takes that for death stays below -1000
        ("Pendulum-v1", -250.0),
    ],
)
def test_the_preset_solves_the_task_within_200k_steps(env_id: str, threshold: float) -> None:
    preset = presets.PRESETS[presets.preset_for(describe(env_id))]
    config = Config(env_id=env_id, **(preset | {"total_timesteps": 200_000}))
    trainer = Trainer(config)
    while trainer.update < config.num_updates:
        trainer.run_update()
    trainer.close()

    result = evaluate(config, trainer.state(), episodes=32, seed=1)

    assert trainer.global_step <= 200_000
    assert result["mean_return"] >= threshold
