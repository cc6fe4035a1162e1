"""Parameters and gradients of a module as views of one buffer each.

One norm, one clip, one Adam and, over several processes, one all-reduce.
"""

import torch
from torch import Tensor, nn


def flatten(module: nn.Module) -> nn.Parameter:
    """Moves the parameters of `module` into one float32 buffer, with a buffer for their gradients.

    Returns:
        The flat parameter, [P], with `.grad` set. The module's parameters and their gradients are
        views of the two, in the order of `module.parameters()`; autograd adds into them in place.
    """
    parameters = list(module.parameters())
    flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = flat.data[start:stop].view_as(parameter)
        parameter.grad = flat.grad[start:stop].view_as(parameter)
        start = stop
    return flat


def gradient(flat: nn.Parameter) -> Tensor:
    """The gradient buffer of a flat parameter."""
    assert flat.grad is not None
    return flat.grad
