"""Atari's frame stacks stored as single frames: a quarter of the memory, and of the copy to a GPU.

What EnvPool 1.2.5 does with a stack (measured; `tests/fastppo/test_frames.py` repeats it): every
step drops the oldest frame and appends one; at the start of a game, after no-op starts and FIRE,
all frames are copies of the first that it shows; a lost life with `episodic_life` is a step like
any other. So one frame per row and the age of its game say everything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo.config import Config
from fastppo.kernels import api
from fastppo.tasks import EnvSpec

IMAGE_SCALE = 1.0 / 255.0


def stacks_frames(spec: EnvSpec) -> bool:
    """Whether observations are stacks of frames as EnvPool's Atari makes them."""
    return spec.family == "atari" and spec.obs_dtype == np.uint8 and spec.obs_shape[0] > 1


def keeps_frames(spec: EnvSpec, config: Config) -> bool:
    """Whether a run's observations are kept as single frames; normalised ones differ by pixel."""
    return stacks_frames(spec) and not config.norm_obs


class FrameStore:
    """The observations of T + 1 rows of N environments, as frames.

    Args:
        num_steps, num_envs: T and N.
        spec: of a task for which `stacks_frames` holds.
        device: where the frames live.
        scale: what the policy's images are multiplied by.
        backend: of the kernel that rebuilds stacks.
    """

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        spec: EnvSpec,
        device: torch.device,
        *,
        scale: float,
        backend: str,
    ) -> None:
        self.num_stack, height, width = spec.obs_shape
        rows = (num_steps + 1, num_envs)
        on_gpu = device.type == "cuda"
        self.device = device
        # [T + S, N, H, W]: row t + S - 1 is the newest frame of row t, S - 1 older ones in front
        self.frames = torch.zeros(
            num_steps + self.num_stack, num_envs, height, width, dtype=torch.uint8, device=device
        )
        # [T + 1, N] steps since the game began, up to S - 1
        self.age = torch.zeros(rows, dtype=torch.uint8, device=device)
        self._host_age = torch.zeros(rows, dtype=torch.uint8, pin_memory=on_gpu)
        self._host_frame: Tensor | None = None
        if on_gpu:
            shape = (num_envs, height, width)
            self._host_frame = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self._index = torch.arange(rows[0] * num_envs, device=device).view(rows)
        self._settings: dict[str, Any] = {
            "num_stack": self.num_stack,
            "scale": scale,
            "channels_last": True,  # as the Nature CNN reads them
            "backend": backend,
        }

    def stage(self, t: int, obs: NDArray[Any], reset: NDArray[np.bool_]) -> None:
        """Takes row t from the environments; on a CPU that writes its frames.

        Args:
            obs: [N, S, H, W] the stacks as EnvPool returns them.
            reset: [N] which of them EnvPool returned from a reset: of a game, or of a lost life.
        """
        ages = self._host_age.numpy()
        np.minimum(ages[t - 1] + 1, self.num_stack - 1, out=ages[t])
        candidates = np.flatnonzero(reset)
        if len(candidates) > 0:
            stacks = obs[candidates]
            # equal frames need no look back, be it a new game or one that stood still
            still = (stacks[:, :-1] == stacks[:, -1:]).all((1, 2, 3))
            ages[t, candidates[still]] = 0
        if self._host_frame is None:
            self.frames[t + self.num_stack - 1].copy_(torch.from_numpy(obs[:, -1]))
        else:
            np.copyto(self._host_frame.numpy(), obs[:, -1])

    def send(self, t: int) -> None:
        """Copies row t to the device."""
        if self._host_frame is not None:
            self.frames[t + self.num_stack - 1].copy_(self._host_frame, non_blocking=True)
        self.age[t].copy_(self._host_age[t], non_blocking=True)

    def open(self) -> None:
        """Carries the last row of the previous rollout to row 0."""
        # a copy: with T < S the two ranges overlap
        self.frames[: self.num_stack] = self.frames[-self.num_stack :].clone()
        self.age[0].copy_(self.age[-1])
        self._host_age[0].copy_(self._host_age[-1])

    def row(self, t: int) -> Tensor:
        """Row t as the policy reads it, [N, S, H, W] scaled."""
        return self.stacks(self._index[t])

    def gather(
        self, index: Tensor, fields: Sequence[Tensor], backend: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Rows `index` [B] as `stacks`, and the same rows of the fields."""
        return self.stacks(index), api.gather_rows(fields, index, backend=backend)

    def stacks(self, index: Tensor) -> Tensor:
        """Rows `index` [B] of the flattened [T + 1, N], [B, S, H, W] scaled."""
        return api.gather_frames(self.frames, self.age, index, **self._settings)
