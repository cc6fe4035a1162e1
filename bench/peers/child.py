"""What the peers' programs share: the request as a task, the work manifest, one line per update.

Imports only what every peer's venv holds: gymnasium, envpool, tyro and torch.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastppo.bench import contract
from fastppo.bench.peers.pool import AutoresetEnv
from fastppo.bench.reference import looks_like_image
from fastppo.config import Config
from fastppo.errors import MachineError, UserError
from fastppo.tasks import EnvSpec, spec_of


@dataclass(frozen=True, slots=True)
class Task:
    """What a request asks for, checked."""

    config: Config
    spec: EnvSpec
    device: str
    env_threads: int
    torch_threads: tuple[int, ...]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Task":
        """Raises UserError for a config or an environment that fastppo would refuse too."""
        config = Config.from_dict(request["config"])
        return cls(
            config=config,
            spec=spec_of(config),
            device=request["device"],
            env_threads=request["env_threads"],
            torch_threads=tuple(request["torch_threads"]),
        )

    @property
    def reads_images(self) -> bool:
        """The network is the Nature CNN."""
        return looks_like_image(self.spec.obs_shape) and self.config.network != "mlp"

    @property
    def obs_bytes(self) -> int:
        """Of one observation, in the environment's dtype (float64 as float32)."""
        return int(np.prod(self.spec.obs_shape)) * self.spec.obs_dtype.itemsize

    def make_env(self, *, norm_obs: bool = True, norm_reward: bool = True) -> AutoresetEnv:
        """The environments; the flags turn the config's normalisation off for a library's own."""
        config = self.config
        return AutoresetEnv(
            config,
            self.spec,
            env_threads=self.env_threads,
            norm_obs=config.norm_obs and norm_obs,
            norm_reward=config.norm_reward and norm_reward,
        )

    def refuse(self, library: str, *fields: str, device: str | None = None) -> None:
        """Stops where the config sets one of the fields, which the library has no notion of.

        Raises:
            UserError: a field is neither None nor False, or the device is not the one it needs.
        """
        for name in fields:
            value = getattr(self.config, name)
            if value not in (None, False):
                raise UserError(f"{name}: {value!r} is not to be had from {library}; leave it out")
        if device is not None and self.device != device:
            wanted = f"use {device}"
            raise UserError(f"device: {self.device!r} is not served by {library} here; {wanted}")

    def work(self, *, parameters: int, forward_flops: int, **differs: Any) -> dict[str, Any]:
        """The manifest of a library that does the config's work.

        Args:
            parameters: trained numbers, counted in the library's network.
            forward_flops: of one observation through actor and critic.
            differs: fields in which the library does other work.
        """
        config = self.config
        atari = self.spec.family == "atari"
        on_gpu = config.device.startswith("cuda")
        work: dict[str, Any] = {
            "parameters": parameters,
            "forward_flops": forward_flops,
            "rows_per_update": config.batch_size,
            "minibatch_rows": config.minibatch_size,
            "epochs": config.update_epochs,
            "gradient_steps_per_update": config.update_epochs * config.num_minibatches,
            "precision": contract.precision(image=self.reads_images, on_gpu=on_gpu),
            "obs_bytes": self.obs_bytes,
            "trains_on_reset_rows": False,
            "wrappers": contract.wrappers(config.to_dict(), atari=atari),
            "network": contract.network(config.to_dict(), image=self.reads_images),
        }
        return work | differs

    def info(self, version: str, notes: str) -> dict[str, Any]:
        """What else is worth a place in the result file."""
        return {
            "version": version,
            "env_threads": min(self.env_threads, self.config.num_envs),
            "torch_threads": self.torch_threads[0],
            "notes": notes,
        }


class Counts(Protocol):
    """Environments that count their own transitions and games."""

    def drain(self) -> tuple[int, list[float]]:
        """Env steps, and the raw returns of the games that ended, since the last call."""


def report_update(report: contract.Reporter, env: Counts) -> None:
    """Says that an update is done, with the env steps and games since the last one."""
    env_steps, returns = env.drain()
    mean = float(np.mean(returns)) if returns else None
    report.update(env_steps=env_steps, episodes=len(returns), return_mean=mean)


def serve(train: Callable[[Task, contract.Reporter], None], *, tunes_torch: bool = True) -> None:
    """Runs a peer's `train` on the request; a known failure is one line and exit code 3.

    Args:
        tunes_torch: the library computes with torch, whose thread counts are worth trying.
    """
    request = contract.read_request()
    if not tunes_torch:
        request["torch_threads"] = request["torch_threads"][:1]
    report = contract.Reporter(request)
    try:
        train(Task.of(request), report)
    except (UserError, MachineError) as error:
        report.error(str(error))
        sys.exit(3)
