"""Clip and Adam over all parameters at once, by the kernels or by torch."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastppo import flat
from fastppo.adam_state import AdamState
from fastppo.config import RunConfig
from fastppo.kernels import api


class AdamTensors(NamedTuple):
    """Adam's state tensors, and its two constants."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    betas: tuple[float, float]
    eps: float


class FlatAdam:
    """Gradient-norm clip and Adam over one flat parameter, skipping a step without a host sync.

    Args:
        parameter: from `flat.flatten`.
        config: `max_grad_norm` clips the global norm to this; 0 turns it off.
    """

    def __init__(self, parameter: torch.nn.Parameter, config: RunConfig) -> None:
        self.parameter = parameter
        self.max_grad_norm = config.max_grad_norm
        self.backend = api.resolve_backend(config.backend, parameter.device, parameter.dtype)
        # Holds the state, in torch's own format. The torch backend steps it, too. fused: one pass
        # over the buffer, and it honours `found_inf`, the device flag to skip by.
        self.adam: torch.optim.Adam | AdamState = (
            torch.optim.Adam([parameter], lr=config.learning_rate, eps=config.adam_eps, fused=True)
            if self.backend == "torch"
            else AdamState(parameter, config)
        )

    def step(self, learning_rate: float | Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the step, unless `skip` or a gradient that is not finite forbids it.

        The gradient is zero afterwards, either way.

        Args:
            learning_rate: a number, or 0-d float32 on the device.
            skip: 0-d bool on the device.

        Returns:
            The gradient norm before clipping, and whether the step was taken (0-d bool).
        """
        if isinstance(learning_rate, float):
            self.note(learning_rate)
        if self.backend == "torch":
            return self._torch_step(learning_rate, skip)
        state = self.begin()
        return api.clip_adam_(
            self.parameter,
            flat.gradient(self.parameter),
            state.exp_avg,
            state.exp_avg_sq,
            state.step,
            lr=learning_rate,
            betas=state.betas,
            eps=state.eps,
            max_grad_norm=self.max_grad_norm or None,
            skip=skip,
            zero_grad=True,
            backend=self.backend,
        )

    def note(self, learning_rate: float) -> None:
        """Keeps the rate where a checkpoint has it."""
        self.adam.param_groups[0]["lr"] = learning_rate

    def begin(self) -> AdamTensors:
        """The state that a kernel advances, all zeros before the first step."""
        group = self.adam.param_groups[0]
        state = self.adam.state[self.parameter]
        if not state:
            state["step"] = torch.zeros((), device=self.parameter.device)
            state["exp_avg"] = torch.zeros_like(self.parameter.detach())
            state["exp_avg_sq"] = torch.zeros_like(self.parameter.detach())
        tensors = (state["step"], state["exp_avg"], state["exp_avg_sq"])
        return AdamTensors(*tensors, group["betas"], group["eps"])

    def _torch_step(self, learning_rate: float | Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        # not api.clip_adam_, whose torch backend is written to be read: up to 13 times as slow
        gradient = flat.gradient(self.parameter)
        norm = torch.linalg.vector_norm(gradient)
        skip = skip | ~torch.isfinite(norm)
        if self.max_grad_norm > 0:
            # torch.nn.utils.clip_grad_norm_ adds the same 1e-6
            gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        assert isinstance(self.adam, torch.optim.Adam)
        self.adam.found_inf = skip.float()  # type: ignore[attr-defined]
        group = self.adam.param_groups[0]
        known, group["lr"] = group["lr"], learning_rate
        self.adam.step()
        group["lr"] = known
        gradient.zero_()
        return norm, ~skip
