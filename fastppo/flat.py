"""Parameters and gradients of a module as views of one buffer each.

One norm, one clip, one Adam and, over several processes, one all-reduce.
"""

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""Parameters start at multiples of so many floats: kernels then load each of them 16 bytes wide."""


def flatten(module: nn.Module) -> nn.Parameter:
    """Moves the parameters of `module` into one float32 buffer, with a buffer for their gradients.

    Convolutions keep their weights channels-last, as images come; between parameters are zeros.

    Returns:
        The flat parameter, [P], with `.grad` set. The module's parameters and their gradients are
        views of the two, in the order of `module.parameters()`; autograd adds into them in place.
    """
    parameters = list(module.parameters())
    starts, stop = [], 0
    for parameter in parameters:
        starts.append(stop)
        stop += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
    flat = nn.Parameter(torch.zeros(stop, device=parameters[0].device))
    flat.grad = torch.zeros_like(flat)
    for start, parameter in zip(starts, parameters, strict=True):
        view = _view(flat.data, start, parameter)
        parameter.data = view.copy_(parameter.data)
        parameter.grad = _view(flat.grad, start, parameter)
    return flat


def _view(buffer: Tensor, start: int, parameter: Tensor) -> Tensor:
    """The part of the buffer that a parameter is, in its shape."""
    part = buffer[start : start + parameter.numel()]
    if parameter.ndim != 4:
        return part.view(parameter.shape)
    outputs, inputs, height, width = parameter.shape
    return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


def gradient(flat: nn.Parameter) -> Tensor:
    """The gradient buffer of a flat parameter."""
    assert flat.grad is not None
    return flat.grad
