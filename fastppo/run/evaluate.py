"""Plays whole episodes with a saved policy, statistics frozen."""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastppo import checkpoint, randomness, threads
from fastppo.config import Config
from fastppo.devices import resolve_device
from fastppo.envs import VecEnv
from fastppo.errors import MachineError, UserError
from fastppo.own_envs import OwnEnvs
from fastppo.run import video as videos
from fastppo.run.args import EvalArgs
from fastppo.run.rundir import RunDir
from fastppo.run.video import Video
from fastppo.saved_policy import SavedPolicy
from fastppo.tasks import EnvSpec, spec_of
from fastppo.text import print_err, print_out
from fastppo.tracking.wandb_eval import record_eval
from fastppo.waiting import waiting

MAX_ENVS = 16


def run(args: EvalArgs) -> int:
    """Runs `fastppo eval`; errors as `evaluate`."""
    folder = RunDir.open(args.run_dir)
    config = folder.read_config()
    path = checkpoint_of(folder, args.checkpoint)
    with waiting(f"playing {args.episodes} episodes"):
        result = evaluate(
            config,
            checkpoint.load(path),
            episodes=args.episodes,
            seed=args.seed,
            deterministic=not args.stochastic,
            device=args.device,
            video=args.video,
        )
    if args.wandb != "disabled":
        record_eval(config, args.run_dir, path, result, args.wandb)
    if args.json:
        print(json.dumps(result))
    else:
        print_out(
            f"{result['env_id']}: return {result['mean_return']:.2f} +- {result['std_return']:.2f}"
            f" over {result['episodes']} episodes (min {result['min_return']:.1f}, max"
            f" {result['max_return']:.1f}, mean length {result['mean_length']:.0f}),"
            f" after {result['global_step']} env steps"
        )
        if args.video is not None:
            print_out(f"film: {args.video}")
    return 0


def checkpoint_of(folder: RunDir, named: Path | None) -> Path:
    """The checkpoint file that was named, `best` among them, or else the newest.

    Raises:
        UserError: there is none.
    """
    if named is None:
        return checkpoint.newest(folder.checkpoints)
    if named == Path(checkpoint.BEST):
        return checkpoint.best(folder.checkpoints)
    return named


def _play(
    policy: SavedPolicy,
    env: VecEnv,
    share: Sequence[int],
    *,
    deterministic: bool,
    film: Video | None = None,
) -> tuple[list[list[float]], list[int]]:
    """Returns of each environment's share of the episodes, and the lengths of all.

    Raises:
        MachineError: an environment gave an episode in which no step was finite.
    """
    returns: list[list[float]] = [[] for _ in share]
    lengths: list[int] = []
    obs, step = env.reset(), 0
    if film is not None:
        film.add(env.picture())
    while any(len(done) < wanted for done, wanted in zip(returns, share, strict=True)):
        actions = policy.choose(obs, step, deterministic=deterministic).cpu().numpy()
        obs = env.step(actions).obs
        step += 1
        if film is not None and len(returns[0]) < share[0]:
            film.add(env.picture())
        for index, total, length in env.episodes.drain():
            if length == 0:
                raise MachineError(
                    f"env_id: environment {index} of {policy.config.env_id} played an episode "
                    "without one finite step, so no return is known; look at its rewards and "
                    "observations"
                )
            if len(returns[index]) < share[index]:
                returns[index].append(total)
                lengths.append(length)
    return returns, lengths


def _environments(
    config: Config, num_envs: int, seed: int, own: OwnEnvs | None, video: Path | None
) -> tuple[VecEnv, EnvSpec]:
    """Environments to play in, and their shapes; they can be drawn where a film is wanted."""
    spec = spec_of(config) if own is None else own.spec
    if video is not None:
        videos.check(video)
        if own is None:
            videos.prepare_drawing(config.env_id)
    plan = threads.plan(config, spec)
    torch.set_num_threads(plan.torch_threads)
    seeds = randomness.env_seeds(seed, range(num_envs), purpose="eval")
    draws = video is not None
    return VecEnv(config, seeds, num_threads=plan.env_threads, own=own, draws=draws), spec


def evaluate(
    config: Config,
    state: dict[str, Any],
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    device: str = "cpu",
    own: OwnEnvs | None = None,
    video: Path | None = None,
) -> dict[str, Any]:
    """Raw returns of `episodes` whole games, across lives and time limits.

    Every environment plays its own share of the episodes: taking the first to finish would favour
    short ones.

    Args:
        state: a checkpoint of the run.
        deterministic: the most likely action rather than a draw.
        own: plays in these in place of EnvPool's.
        video: films the episodes of the first environment into this file.

    Raises:
        UserError: fewer than one episode, the checkpoint does not fit the config, or the task
            cannot be drawn here.
        MachineError: an environment gave an episode in which no step was finite.
    """
    if episodes < 1:
        raise UserError(f"episodes: {episodes} must be above 0")
    checkpoint.check_run(state, config.to_dict())
    config = dataclasses.replace(config, episodic_life=False, sign_reward=False)
    num_envs = min(episodes, MAX_ENVS) if own is None else own.num_envs
    env, spec = _environments(config, num_envs, seed, own, video)
    policy = SavedPolicy(config, state, spec, env.actions, resolve_device(device), seed=seed)
    share = [episodes // num_envs + (env < episodes % num_envs) for env in range(num_envs)]
    with ExitStack() as stack:
        stack.callback(env.close)
        film = None if video is None else stack.enter_context(videos.Video(video, spec))
        returns, lengths = _play(policy, env, share, deterministic=deterministic, film=film)
    if env.gate.rows.any():
        print_err(f"fastppo: warning: {env.gate.warning()}")
    all_returns = [total for done in returns for total in done]
    return {
        "env_id": config.env_id,
        "episodes": len(all_returns),
        "mean_return": float(np.mean(all_returns)),
        "std_return": float(np.std(all_returns)),
        "min_return": float(np.min(all_returns)),
        "max_return": float(np.max(all_returns)),
        "mean_length": float(np.mean(lengths)),
        "non_finite_rows": int(env.gate.rows.sum()),
        "deterministic": deterministic,
        "seed": seed,
        "update": state["update"],
        "global_step": state["global_step"],
        "returns": all_returns,
    }
