"""Where a rollout keeps its observations: T + 1 rows of N environments on the training device."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastppo.config import Config
from fastppo.frames import IMAGE_SCALE, FrameStore, keeps_frames
from fastppo.kernels import api
from fastppo.normalize import ObsNormalizer
from fastppo.policy import reads_images
from fastppo.tasks import EnvSpec


class ObsStore(Protocol):
    """What a rollout asks of its observations."""

    def stage(self, t: int, obs: NDArray[Any], reset: NDArray[np.bool_]) -> None:
        """Takes row t from the environments, for `send`; the row staged before must have crossed.

        Args:
            obs: [N, ...] as the environments gave them.
            reset: [N] which of them are an environment's first after a reset.
        """
        ...

    def send(self, t: int) -> None:
        """The copy of row t to the device; on a CPU `stage` has written it in place."""
        ...

    def open(self) -> None:
        """Carries row T to row 0."""
        ...

    def row(self, t: int) -> Tensor:
        """Row t as the policy reads it, [N, ...]."""
        ...

    def gather(
        self, index: Tensor, fields: Sequence[Tensor], backend: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Rows `index` [B] of the flattened [T, N] as the policy reads them, and of the fields."""
        ...


class PlainStore:
    """Observations as they are, normalised where the run normalises.

    Args:
        normalizer: makes the policy's input of a row when it is asked for; None for the row itself.
    """

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        spec: EnvSpec,
        device: torch.device,
        normalizer: ObsNormalizer | None,
    ) -> None:
        dtype = torch.uint8 if spec.obs_dtype == np.uint8 else torch.float32
        shape = (num_steps + 1, num_envs, *spec.obs_shape)
        self.normalizer = normalizer
        self.obs = torch.zeros(shape, dtype=dtype, device=device)
        # what the policy reads: a second buffer only where normalising makes it differ
        self.inputs = self.obs if normalizer is None else torch.zeros(shape, device=device)
        self._host_row: Tensor | None = None
        if device.type == "cuda":
            self._host_row = torch.zeros((1, *shape[1:]), dtype=dtype, pin_memory=True)

    def stage(self, t: int, obs: NDArray[Any], reset: NDArray[np.bool_]) -> None:
        """Takes row t from the environments; on a CPU that writes it."""
        del reset
        self._staged[t if self._host_row is None else 0] = obs

    def send(self, t: int) -> None:
        """Copies row t to the device, where it is not staged there."""
        if self._host_row is not None:
            self.obs[t].copy_(self._host_row[0], non_blocking=True)

    @cached_property
    def _staged(self) -> NDArray[Any]:
        """Where rows are staged, as numpy has it: an assignment costs less."""
        rows: NDArray[Any] = (self.obs if self._host_row is None else self._host_row).numpy()
        return rows

    def open(self) -> None:
        """Carries row T to row 0."""
        self.obs[0].copy_(self.obs[-1])

    def row(self, t: int) -> Tensor:
        """Row t as the policy reads it: normalised by what the statistics are now."""
        if self.normalizer is not None:
            self.normalizer(self.obs[t], out=self.inputs[t])
        return self.inputs[t]

    def gather(
        self, index: Tensor, fields: Sequence[Tensor], backend: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Rows of observations and fields, in one launch."""
        obs, *others = api.gather_rows(
            [self.inputs[:-1].flatten(0, 1), *fields], index, backend=backend
        )
        return obs, tuple(others)


def make_store(
    config: Config, spec: EnvSpec, device: torch.device, normalizer: ObsNormalizer | None
) -> ObsStore:
    """Single frames for Atari's stacks, everything else as it is."""
    rows = (config.num_steps, config.num_envs)
    if not keeps_frames(spec, config):
        return PlainStore(*rows, spec, device, normalizer)
    scale = IMAGE_SCALE if reads_images(spec, config) else 1.0
    return FrameStore(*rows, spec, device, scale=scale, backend=config.backend)
