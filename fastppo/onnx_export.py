"""A policy as an ONNX file: the most likely action and the value, from raw observations."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastppo import files
from fastppo.actions import ActionSpace
from fastppo.errors import MachineError, UserError, why
from fastppo.normalize import EPSILON, ObsNormalizer
from fastppo.policy import ActorCritic
from fastppo.tasks import EnvSpec


class _Deterministic(nn.Module):
    """In plain torch: ONNX knows no operation of ours."""

    low: Tensor
    high: Tensor

    def __init__(
        self, network: ActorCritic, normalizer: ObsNormalizer | None, space: ActionSpace
    ) -> None:
        super().__init__()
        self.network, self.normalizer, self.shape = network, normalizer, space.shape
        dtype = torch.int64 if space.is_discrete else torch.float32
        for name, bound in (("low", space.low), ("high", space.high)):
            if bound is not None:
                flat = np.broadcast_to(np.reshape(bound, -1), math.prod(space.shape))
                self.register_buffer(name, torch.tensor(flat, dtype=dtype))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        if self.normalizer is not None:
            # as `kernels.moments.spec.normalize`
            moments, clip = self.normalizer.moments, self.normalizer.clip
            normal = (obs.double() - moments.mean) * torch.rsqrt(moments.var + EPSILON)
            obs = normal.clamp(-clip, clip).float()
        outputs, values = self.network(obs)
        nvec = self.network.nvec
        if nvec is None:
            chosen = torch.minimum(torch.maximum(outputs, self.low), self.high)
        else:
            heads = [logits.argmax(-1) for logits in outputs.split(nvec, -1)]
            chosen = torch.stack(heads, -1) + self.low
        return chosen.reshape(-1, *self.shape), values


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps the exporter from telling about packages that nobody needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def write(
    path: Path,
    network: ActorCritic,
    normalizer: ObsNormalizer | None,
    space: ActionSpace,
    spec: EnvSpec,
    device: torch.device,
) -> None:
    """Writes the file, whole or not at all.

    Raises:
        UserError: a package for it is missing.
        MachineError: the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export: {error.name} is missing; pip install onnx onnxscript") from None
    dtype = torch.uint8 if spec.obs_dtype == np.uint8 else torch.float32
    example = torch.zeros((2, *spec.obs_shape), dtype=dtype, device=device)
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Deterministic(network, normalizer, space).eval(),
            (example,),
            input_names=["obs"],
            output_names=["action", "value"],
            dynamic_shapes={"obs": {0: torch.export.Dim("N")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    try:
        with files.replacing(path) as file:
            file.write(program.model_proto.SerializeToString())
    except OSError as error:
        raise MachineError(f"export: cannot write {path} ({why(error)})") from error
