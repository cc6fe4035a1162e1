"""Which engine executes a run's two hot functions, `act` and `update`."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray

from fastppo.adam import FlatAdam
from fastppo.config import Config
from fastppo.envs import VecEnv
from fastppo.errors import UserError
from fastppo.frames import keeps_frames
from fastppo.kernels.mlp.records import MAX_WIDTH
from fastppo.normalize import RewardScaler
from fastppo.policy import ActorCritic, reads_images
from fastppo.ppo import EagerEngine, UpdateStats
from fastppo.rollout import Rollout
from fastppo.tasks import EnvSpec
from fastppo.timing import PhaseTimer


class Engine(Protocol):
    """What a trainer needs of an engine; `ppo.EagerEngine` defines what it computes."""

    name: str
    policy: ActorCritic
    optimizer: FlatAdam

    def act(self, rollout: Rollout, t: int, step: int) -> NDArray[Any]:
        """Decides on row t of the rollout; the actions on the host, [N, ...]."""
        ...

    def play(self, env: VecEnv, rollout: Rollout, t: int, step: int, timer: PhaseTimer) -> int:
        """Fills rows of the rollout from t on; how many, at least one."""
        ...

    def stepping(self, env: VecEnv) -> str:
        """How these environments are stepped, for the record of a run."""
        ...

    def bootstrap(self, rollout: Rollout) -> None:
        """Writes the values that acting left out, those of row T among them."""
        ...

    def finish(self, rollout: Rollout, reward_scaler: RewardScaler | None) -> None:
        """Scales rewards and computes advantages and returns."""
        ...

    def update(self, rollout: Rollout, update: int) -> UpdateStats:
        """K epochs of minibatch steps on one rollout."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine of a run, and why it is that one."""

    name: Literal["eager", "mlp", "graph"]
    reason: str


def choose(config: Config, spec: EnvSpec, backend: str, device: torch.device) -> Choice:
    """The engine that the config names; `auto` takes the fastest that computes the same.

    Args:
        backend: resolved, of the kernels.

    Raises:
        UserError: the engine that is named cannot run it; the message says why.
    """
    if config.engine == "eager":
        return Choice("eager", "as asked for")
    on_gpu = device.type == "cuda"
    name: Literal["graph", "mlp"] = "graph" if on_gpu else "mlp"
    if config.engine != "auto":
        name = config.engine
    if name == "mlp":
        refusal = _mlp_refusal(config, spec, backend)
        reason = "an MLP on a CPU: acting and updating are one call each"
    else:
        refusal = _graph_refusal(config, backend, on_gpu=on_gpu)
        reason = "a GPU: a step of all environments is one launch, and so is an update"
        if not on_gpu:
            reason = "as asked for; a CPU captures nothing: it rehearses, op by op"
    if refusal is None:
        return Choice(name, reason)
    if config.engine == name:
        raise UserError(f"engine: {name!r} cannot serve: {refusal}; use eager or auto")
    return Choice("eager", refusal)


def _graph_refusal(config: Config, backend: str, *, on_gpu: bool) -> str | None:
    """Why the graph engine cannot run it, or None."""
    if on_gpu and backend != "triton":
        return f"graph captures the Triton kernels, and the backend is {backend}"
    if config.anneal_clip:
        return "graph keeps the clip range that it was captured with, and anneal_clip changes it"
    return None


def _mlp_refusal(config: Config, spec: EnvSpec, backend: str) -> str | None:
    """Why the mlp engine cannot run it, or None."""
    if backend != "numba":
        return f"mlp runs on the numba kernels, and the backend is {backend}"
    if reads_images(spec, config):
        return "mlp runs MLPs, and this policy reads images by a CNN"
    if keeps_frames(spec, config):
        return "mlp reads rows of floats, and this task's observations are stacks of frames"
    if spec.nvec is not None and sum(spec.nvec) > MAX_WIDTH:
        return f"mlp runs policies of up to {MAX_WIDTH} logits, not {sum(spec.nvec)}"
    return None


MANY_ACTIONS = 128
"""From here on the kernel of a vocabulary serves the loss on a CPU."""


def operations(config: Config, spec: EnvSpec, choice: Choice, *, on_gpu: bool) -> list[str]:
    """The operations of `kernels.api` that a run calls: the others need not be compiled.

    The mlp engine has its own way to the kernels that it calls, and imports them.
    """
    needed = ["gae"]
    if choice.name != "mlp":
        loss = "loss.categorical" if spec.is_discrete else "loss.gaussian"
        needed += ["act", loss, "gather", "adam"]
        if spec.is_discrete and sum(spec.nvec or ()) > MANY_ACTIONS:
            needed.append("loss.tokens")
        if on_gpu:
            needed.append("advantage_stats")
        if keeps_frames(spec, config):
            needed.append("frames")
    if config.norm_obs or config.norm_reward:
        needed.append("moments")
    return needed


def make_engine(policy: ActorCritic, config: Config, choice: Choice) -> Engine:
    """The engine that was chosen, with the policy's parameters in one flat buffer."""
    if choice.name == "eager":
        return EagerEngine(policy, config)
    if choice.name == "graph":
        from fastppo.graph_engine import GraphEngine  # for no start that does not use it

        return GraphEngine(policy, config)
    from fastppo.mlp_engine import MlpEngine  # numba need not be installed where torch serves

    return MlpEngine(policy, config)
