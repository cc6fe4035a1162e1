"""The buffer: one row in, the same row out, invalid rows marked."""

import numpy as np
import torch

from fastppo.config import Config
from fastppo.envs import StepResult
from fastppo.normalize import ObsNormalizer
from fastppo.observations import PlainStore
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec

CPU = torch.device("cpu")
SPEC = EnvSpec(
    env_id="CartPole-v1",
    family="classic_control",
    obs_shape=(3,),
    obs_dtype=np.dtype(np.float32),
    action_dim=1,
    nvec=(2,),
    frame_skip=1,
)


def config(num_steps: int, num_envs: int, num_minibatches: int = 1) -> Config:
    return Config(
        env_id="CartPole-v1",
        num_steps=num_steps,
        num_envs=num_envs,
        num_minibatches=num_minibatches,
        gamma=0.5,
        gae_lambda=0.5,
        backend="torch",
    )


FIRST = np.ones(1, np.bool_)


def plain(rollout: Rollout) -> PlainStore:
    assert isinstance(rollout.store, PlainStore)
    return rollout.store


def step(rewards: list[float], terminated: list[bool], truncated: list[bool]) -> StepResult:
    count = len(rewards)
    return StepResult(
        np.zeros((count, 3), np.float32),
        np.array(rewards, np.float32),
        np.array(terminated),
        np.array(truncated),
        np.ones(count, np.bool_),
    )


def test_time_out_in_the_last_row_bootstraps_from_the_final_observation() -> None:
    """gamma = 0.5. Row 0 of each environment ends the rollout with reward 1 and V = 2.

    V of the final observation is 8: it counts where the episode was cut or goes on
    (1 + 0.5 * 8 - 2 = 3), not where it terminated (1 - 2 = -1).
    """
    rollout = Rollout(config(1, 3), SPEC, CPU)
    rollout.act_row(0).values.fill_(2.0)
    rollout.write(0, step([1.0] * 3, [True, False, False], [False, True, False]))
    rollout.upload()
    rollout.values[-1] = 8.0
    rollout.finish(None)

    assert rollout.advantages.tolist() == [[-1.0, 3.0, 3.0]]


def test_float64_observations_are_cast_once_and_uint8_stays_uint8() -> None:
    floats = Rollout(config(2, 1), SPEC, CPU)
    floats.store.stage(0, np.array([[1.0, 2.0, 3.0]], np.float64), FIRST)
    row = floats.store.row(0)
    pixels_spec = EnvSpec("x", "atari", (1, 2, 2), np.dtype(np.uint8), 1, (2,), 4)
    pixels = Rollout(config(2, 1), pixels_spec, CPU)

    assert row.dtype == torch.float32
    assert row.tolist() == [[1.0, 2.0, 3.0]]
    assert row.data_ptr() == plain(floats).obs[0].data_ptr()
    pixels.store.stage(1, np.full((1, 1, 2, 2), 7, np.uint8), FIRST)
    assert pixels.store.row(1).dtype == torch.uint8
    assert (pixels.store.row(1) == 7).all()


def test_the_last_observation_opens_the_next_rollout_under_the_new_statistics() -> None:
    normalizer = ObsNormalizer((3,), clip=10.0)
    rollout = Rollout(config(1, 1), SPEC, CPU, normalizer)
    rollout.store.stage(0, np.full((1, 3), 2.0, np.float32), FIRST)
    rollout.store.stage(1, np.full((1, 3), 4.0, np.float32), FIRST)
    rollout.update_obs_statistics()

    rollout.open()
    opened = rollout.store.row(0)

    assert normalizer.moments.mean.tolist() == [2.0, 2.0, 2.0]  # row 0 alone; row 1 comes next
    assert plain(rollout).obs[0].tolist() == [[4.0, 4.0, 4.0]]
    torch.testing.assert_close(opened, normalizer(torch.full((1, 3), 4.0)))


def test_minibatches_cover_every_row_once_and_keep_rows_together() -> None:
    rollout = Rollout(config(5, 4, num_minibatches=4), SPEC, CPU)
    index = torch.arange(20.0).view(5, 4)
    plain(rollout).obs[:-1] = index[..., None].expand(5, 4, 3)
    for field in (rollout.log_probs, rollout.advantages, rollout.returns):
        field.copy_(index)
    rollout.values[:-1] = index
    rollout.actions.copy_(index.long())
    rollout.valid.copy_(index % 2 == 0)

    batches = list(rollout.minibatches(next(rollout.orders(update=3))))
    order = torch.cat([mb.obs[:, 0] for mb in batches])

    assert [len(mb.obs) for mb in batches] == [5, 5, 5, 5]
    assert sorted(order.tolist()) == list(range(20))
    for mb in batches:
        for field in (mb.old_log_probs, mb.advantages, mb.returns, mb.old_values, mb.actions):
            assert torch.equal(field.float(), mb.obs[:, 0])
        assert torch.equal(mb.valid, mb.obs[:, 0] % 2 == 0)


def test_epochs_are_shuffled_afresh() -> None:
    rollout = Rollout(config(8, 4), SPEC, CPU)
    rollout.log_probs.copy_(torch.arange(32.0).view(8, 4))
    first, second, *_ = (
        next(rollout.minibatches(order)).old_log_probs for order in rollout.orders(0)
    )

    assert not torch.equal(first, second)


def test_explained_variance_looks_at_valid_rows_alone() -> None:
    rollout = Rollout(config(4, 1), SPEC, CPU)
    rollout.returns = torch.tensor([[1.0], [2.0], [float("nan")], [3.0]])
    rollout.valid.copy_(torch.tensor([[True], [True], [False], [True]]))
    rollout.values[:4] = torch.tensor([[1.0], [2.0], [0.0], [3.0]])

    assert float(rollout.explained_variance()) == 1.0

    rollout.values[:4] = 2.0

    assert float(rollout.explained_variance()) == 0.0
