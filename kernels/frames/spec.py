"""Frame stacks from single frames, in plain torch: the specification."""

import torch
from torch import Tensor


def gather_frames(
    frames: Tensor,
    age: Tensor,
    index: Tensor,
    num_stack: int,
    dtype: torch.dtype,
    channels_last: bool,
    scale: float,
    out: Tensor | None,
) -> Tensor:
    """The stacks that end in rows `index`, scaled, as `frames.gather_frames` describes them."""
    num_envs = frames.shape[1]
    known = torch.index_select(age.flatten(), 0, index).long()  # raises where out of range
    back = torch.arange(num_stack - 1, -1, -1, device=frames.device)  # oldest frame first
    newest = index // num_envs + (num_stack - 1)
    steps = newest[:, None] - torch.minimum(back, known[:, None])
    stacks = frames[steps, (index % num_envs)[:, None]]  # [B, num_stack, H, W]
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    images = (stacks.to(exact) * scale).to(dtype)
    if out is None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        out = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=layout)
    return out.copy_(images)
