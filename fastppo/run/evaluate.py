"""Plays whole episodes with a saved policy, statistics frozen."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastppo import checkpoint, randomness, threads
from fastppo.config import Config
from fastppo.devices import resolve_device
from fastppo.envs import VecEnv
from fastppo.errors import MachineError, UserError
from fastppo.run.args import EvalArgs
from fastppo.run.rundir import RunDir
from fastppo.tasks import spec_of
from fastppo.text import print_err, print_out
from fastppo.tracking.wandb_eval import record_eval
from fastppo.train import build_obs_normalizer, build_policy

MAX_ENVS = 16


def run(args: EvalArgs) -> int:
    """Runs `fastppo eval`; errors as `evaluate`."""
    folder = RunDir.open(args.run_dir)
    config = folder.read_config()
    path = args.checkpoint or checkpoint.newest(folder.checkpoints)
    result = evaluate(
        config,
        checkpoint.load(path),
        episodes=args.episodes,
        seed=args.seed,
        deterministic=not args.stochastic,
        device=args.device,
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
    return 0


class _Player:
    """A saved policy with its statistics frozen."""

    def __init__(
        self,
        config: Config,
        state: dict[str, Any],
        device: torch.device,
        seed: int,
        *,
        deterministic: bool,
    ) -> None:
        self.env_id = config.env_id
        self._device = device
        self._deterministic = deterministic
        self._key = randomness.act_key(seed)
        self._policy = build_policy(config, device)
        self._normalizer = build_obs_normalizer(config, device)
        with checkpoint.fitting():
            self._policy.load_state_dict(state["policy"])
            if self._normalizer is not None:
                self._normalizer.load_state_dict(state["obs_normalizer"])

    def actions(self, obs: NDArray[Any], step: int) -> NDArray[Any]:
        """For one row of observations [N, ...], after so many decisions."""
        inputs = torch.from_numpy(obs).to(self._device)
        if self._normalizer is not None:
            inputs = self._normalizer(inputs)
        if self._deterministic:
            actions = self._policy.mode(inputs)
        else:
            actions = self._policy.act(inputs, step, key=self._key).actions
        chosen: NDArray[Any] = actions.cpu().numpy()
        return chosen


def _play(
    player: _Player, env: VecEnv, share: Sequence[int]
) -> tuple[list[list[float]], list[int]]:
    """Returns of each environment's share of the episodes, and the lengths of all.

    Raises:
        MachineError: an environment gave an episode in which no step was finite.
    """
    returns: list[list[float]] = [[] for _ in share]
    lengths: list[int] = []
    obs, step = env.reset(), 0
    while any(len(done) < wanted for done, wanted in zip(returns, share, strict=True)):
        obs = env.step(player.actions(obs, step)).obs
        step += 1
        for index, total, length in env.episodes.drain():
            if length == 0:
                raise MachineError(
                    f"env_id: environment {index} of {player.env_id} played an episode without one "
                    "finite step, so no return is known; look at its rewards and observations"
                )
            if len(returns[index]) < share[index]:
                returns[index].append(total)
                lengths.append(length)
    return returns, lengths


def evaluate(
    config: Config,
    state: dict[str, Any],
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    device: str = "cpu",
) -> dict[str, Any]:
    """Raw returns of `episodes` whole games, across lives and time limits.

    Every environment plays its own share of the episodes: taking the first to finish would favour
    short ones.

    Args:
        state: a checkpoint of the run.
        deterministic: the most likely action rather than a draw.

    Raises:
        UserError: fewer than one episode, or the checkpoint does not fit the config.
        MachineError: an environment gave an episode in which no step was finite.
    """
    if episodes < 1:
        raise UserError(f"episodes: {episodes} must be above 0")
    if state["config"] != config.to_dict():
        raise UserError("checkpoint: belongs to another run than config.json; name one of this run")
    config = dataclasses.replace(config, episodic_life=False, sign_reward=False)
    plan = threads.plan(config, spec_of(config))
    torch.set_num_threads(plan.torch_threads)
    player = _Player(config, state, resolve_device(device), seed, deterministic=deterministic)
    num_envs = min(episodes, MAX_ENVS)
    share = [episodes // num_envs + (env < episodes % num_envs) for env in range(num_envs)]
    seeds = randomness.env_seeds(seed, range(num_envs), purpose="eval")
    env = VecEnv(config, seeds, num_threads=plan.env_threads)
    returns, lengths = _play(player, env, share)
    env.close()
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
