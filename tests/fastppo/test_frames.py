"""Single frames rebuild what EnvPool returned, bit for bit, at every step of every game."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.frames import IMAGE_SCALE, FrameStore, stacks_frames
from fastppo.normalize import ObsNormalizer
from fastppo.observations import PlainStore
from fastppo.policy import ActorCritic
from fastppo.presets import PRESETS
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec, spec_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Small float operations on several threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def atari(env_id: str, **changes: Any) -> Config:
    sizes = {"num_steps": 40, "num_envs": 3, "num_minibatches": 1, "device": "cpu"}
    return Config(env_id=env_id, **(PRESETS["atari"] | sizes | changes))


def play(config: Config, rollouts: int, rollout: Rollout) -> Iterator[tuple[np.ndarray, Any, int]]:
    """Random games written into `rollout`: EnvPool's stacks [T + 1, N, ...], step results, resets.

    Asserts of every row, as it is written, that the policy reads what EnvPool returned.
    """
    rng = np.random.default_rng(0)
    env = VecEnv(config, list(range(config.num_envs)), num_threads=1)
    obs = env.reset()
    rollout.begin(obs)
    choices = spec_of(config).nvec
    assert choices is not None
    for _ in range(rollouts):
        stacks, resets = [obs.copy()], 0
        rollout.open()
        assert torch.equal(rollout.store.row(0), scaled(obs))
        for t in range(config.num_steps):
            step = env.step(rng.integers(0, choices[0], config.num_envs))
            rollout.write(t, step)
            assert torch.equal(rollout.store.row(t + 1), scaled(step.obs))
            obs = step.obs
            stacks.append(obs.copy())
            resets += int((~step.valid).sum())
        yield np.stack(stacks), step, resets
    env.close()


def scaled(stacks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(stacks.copy()).float() * IMAGE_SCALE


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("Pong-v5", {"max_episode_steps": 37}),
        ("Breakout-v5", {"max_episode_steps": 37}),
        ("Breakout-v5", {}),
        ("Breakout-v5", {"fire_reset": False, "noop_max": 1}),
        ("Breakout-v5", {"episodic_life": False, "frame_stack": 3, "max_episode_steps": 37}),
        ("Breakout-v5", {"frame_stack": 2, "num_steps": 1, "max_episode_steps": 5}),
    ],
)
def test_rebuilds_the_observations_of_envpool(env_id: str, options: dict[str, Any]) -> None:
    config = atari(env_id, **options)
    rollout = Rollout(config, spec_of(config), CPU)
    store = rollout.store
    assert isinstance(store, FrameStore)
    count, resets = 160 // config.num_steps, 0

    for stacks, _, row_resets in play(config, count, rollout):
        resets += row_resets
        index = torch.arange(stacks[:, :, 0, 0, 0].size)
        rebuilt = store.stacks(index).unflatten(0, stacks.shape[:2])

        assert torch.equal(rebuilt, scaled(stacks))
        assert torch.equal(store.row(1), scaled(stacks[1]))

    assert resets > 3


def test_a_lost_life_does_not_clear_the_stack_and_a_new_game_does() -> None:
    """What the storage rests on, said of EnvPool itself."""
    config = atari("Breakout-v5")
    env = VecEnv(config, [0, 1, 2], num_threads=1)
    rng = np.random.default_rng(1)
    previous = env.reset().copy()
    assert (previous == previous[:, -1:]).all()
    lives = {"kept": 0, "cleared": 0}
    games_over = np.zeros(3, bool)
    for _ in range(400):
        step = env.step(rng.integers(0, 4, 3))
        for n in range(3):
            shifted = (step.obs[n, :-1] == previous[n, 1:]).all()
            filled = (step.obs[n] == step.obs[n, -1:]).all()
            assert filled if games_over[n] else shifted
            if not step.valid[n]:
                lives["cleared" if games_over[n] else "kept"] += 1
        over = {index for index, _, _ in env.episodes.drain()}
        games_over = np.array([n in over for n in range(3)])
        previous = step.obs.copy()
    env.close()

    assert min(lives.values()) > 1, lives


def test_minibatches_hold_the_images_of_their_rows() -> None:
    config = atari("Pong-v5", max_episode_steps=17, num_steps=24, num_minibatches=4)
    spec = spec_of(config)
    rollout = Rollout(config, spec, CPU)
    ((stacks, _, _),) = play(config, 1, rollout)
    rollout.advantages.copy_(torch.arange(72.0).view(24, 3))  # each row's number

    batches = list(rollout.minibatches(next(rollout.orders(update=0))))

    assert sorted(n for mb in batches for n in mb.advantages.tolist()) == list(range(72))
    images = scaled(stacks[:-1]).flatten(0, 1)
    policy = ActorCritic(spec, config)
    for mb in batches:
        rows = mb.advantages.long()
        assert mb.obs.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(mb.obs, images[rows])
        # images and bytes are the same to the policy
        ours = policy(mb.obs)
        theirs = policy(torch.from_numpy(stacks[:-1]).flatten(0, 1)[rows])
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_an_mlp_reads_the_bytes_unscaled() -> None:
    config = atari("Pong-v5", network="mlp", num_steps=2)
    rollout = Rollout(config, spec_of(config), CPU)

    rollout.begin(np.full((3, 4, 84, 84), 200, np.uint8))

    assert torch.equal(rollout.store.row(2), torch.full((3, 4, 84, 84), 200.0))


def test_what_is_no_stack_of_frames_is_stored_as_it_is() -> None:
    single = atari("Pong-v5", frame_stack=1)
    stacked = atari("Pong-v5", norm_obs=True)
    normalizer = ObsNormalizer(spec_of(stacked).obs_shape, clip=10.0)

    stores = (
        Rollout(single, spec_of(single), CPU).store,
        Rollout(stacked, spec_of(stacked), CPU, normalizer).store,
    )
    shapes = [store.obs.shape for store in stores if isinstance(store, PlainStore)]
    assert shapes == [(41, 3, 1, 84, 84), (41, 3, 4, 84, 84)]


def test_rollout_of_a_thousand_environments_fits_one_gigabyte() -> None:
    """128 x 1024 rows: 3.7 GB as stacks. Shapes alone: nothing is allocated."""
    spec = EnvSpec("Pong-v5", "atari", (4, 84, 84), np.dtype(np.uint8), 1, (6,), 4)
    meta = torch.device("meta")
    assert stacks_frames(spec)
    config = atari("Pong-v5", num_steps=128, num_envs=1024)
    with torch.device("meta"):
        rollout = Rollout(config, spec, meta)

    held = {**vars(rollout), **vars(rollout.store)}
    tensors = {id(t): t for t in held.values() if isinstance(t, torch.Tensor)}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    assert isinstance(rollout.store, FrameStore)
    assert 132 * 1024 * 84 * 84 < size < 1e9
    assert 129 * 1024 * 4 * 84 * 84 > 3.7e9
