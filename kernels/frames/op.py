"""Frame stacks rebuilt from frames stored once: the public function, checked and sent to a backend.

Four frames make a stack and each frame is in four stacks: who stores stacks stores all four times.
"""

from typing import Any

import torch
from torch import Tensor

from fastppo.kernels.backends import implementation
from fastppo.kernels.gather.op import check_index, implementation_for_bytes
from fastppo.kernels.registry import register

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def _module(backend: str, frames: Tensor, dtype: torch.dtype) -> Any:
    if dtype == torch.float64:  # the oracle's; only torch serves it
        return implementation("frames", backend, frames.new_empty(0, dtype=dtype))
    return implementation_for_bytes("frames", backend, frames.device)


def _run(
    frames: Tensor,
    age: Tensor,
    index: Tensor,
    num_stack: int,
    dtype: torch.dtype,
    channels_last: bool,
    scale: float,
    backend: str,
) -> Tensor:
    module = _module(backend, frames, dtype)
    stacks: Tensor = module.gather_frames(
        frames, age, index, num_stack, dtype, channels_last, scale, None
    )
    return stacks


def _run_out(
    frames: Tensor,
    age: Tensor,
    index: Tensor,
    num_stack: int,
    channels_last: bool,
    scale: float,
    out: Tensor,
    backend: str,
) -> None:
    module = _module(backend, frames, out.dtype)
    module.gather_frames(frames, age, index, num_stack, out.dtype, channels_last, scale, out)


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _fake(
    frames: Tensor,
    _age: Tensor,
    index: Tensor,
    num_stack: int,
    dtype: torch.dtype,
    channels_last: bool,
    *_: object,
) -> Tensor:
    return torch.empty(
        (index.shape[0], num_stack, *frames.shape[2:]),
        dtype=dtype,
        device=frames.device,
        memory_format=_layout(channels_last),
    )


def _fake_out(*_: object) -> None:
    return None


_operation = register(
    "gather_frames(Tensor frames, Tensor age, Tensor index, int num_stack, ScalarType dtype, "
    "bool channels_last, float scale, str backend) -> Tensor",
    _run,
    _fake,
)
_operation_out = register(
    "gather_frames_out(Tensor frames, Tensor age, Tensor index, int num_stack, "
    "bool channels_last, float scale, Tensor(a!) out, str backend) -> ()",
    _run_out,
    _fake_out,
)


def _check(frames: Tensor, age: Tensor, index: Tensor, num_stack: int, dtype: torch.dtype) -> None:
    if num_stack < 1:
        raise ValueError(f"num_stack={num_stack}: expected 1 or more")
    if frames.ndim != 4 or frames.dtype != torch.uint8 or frames.shape[0] < num_stack:
        raise ValueError(
            f"frames has shape {list(frames.shape)} and dtype {frames.dtype}: expected uint8 "
            f"[T + {num_stack - 1}, N, H, W] with T >= 1"
        )
    rows = (frames.shape[0] - num_stack + 1, frames.shape[1])
    if age.shape != rows or age.dtype != torch.uint8:
        raise ValueError(
            f"age has shape {list(age.shape)} and dtype {age.dtype}: expected uint8 {list(rows)}"
        )
    if age.device != frames.device:
        raise ValueError(f"age is on {age.device}: expected {frames.device}, as frames")
    check_index(index, frames.device)
    if dtype not in _DTYPES:
        names = ", ".join(str(d) for d in _DTYPES)
        raise ValueError(f"dtype={dtype}: expected one of {names}")


def _check_out(out: Tensor, frames: Tensor, shape: tuple[int, ...], channels_last: bool) -> None:
    layout = _layout(channels_last)
    if out.shape != shape or out.device != frames.device:
        raise ValueError(
            f"out is {list(out.shape)} on {out.device}: expected {list(shape)} on {frames.device}"
        )
    if not out.is_contiguous(memory_format=layout):
        raise ValueError(
            f"out has strides {out.stride()}: expected those of torch.empty(..., "
            f"memory_format={layout})"
        )


def gather_frames(
    frames: Tensor,
    age: Tensor,
    index: Tensor,
    *,
    num_stack: int = 4,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    scale: float = 1.0 / 255.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The frame stacks of rows `index`, converted and scaled, [B, num_stack, H, W].

        stack[b, s] = scale * frames[t + S - 1 - min(S - 1 - s, age[t, n]), n]
        t, n = divmod(index[b], N),  S = num_stack,  s = S - 1 the newest frame

    The product is taken in float32 and rounded once to `dtype` (float64, for tests, throughout).
    An acting step rebuilds the row t of all environments with index = t * N + arange(N).

    Args:
        frames: [T + S - 1, N, H, W] uint8; row t + S - 1 holds the newest frame of row t, and the
            first S - 1 rows hold what came before row 0.
        age: [T, N] uint8, steps since the game began, or S - 1 if there were more: so many earlier
            frames of the stack are the game's own, and copies of its first frame fill the others,
            as EnvPool fills them.
        index: [B] int64 in 0 .. T * N - 1.
        channels_last: whether the result has torch's channels-last memory format.
        out: where to write the result, dense in that format, or None for a new tensor; its dtype
            then stands for `dtype`.

    Raises:
        ValueError: a shape, dtype, device or number is off; the message names it.
        IndexError: on the CPU, an index is out of range. On CUDA, where looking would wait for the
            device, the Triton kernel reads nothing for such a row and fills it with NaN.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    num_stack = int(num_stack)  # numpy's would fail where a kernel is compiled for it
    dtype = dtype if out is None else out.dtype
    _check(frames, age, index, num_stack, dtype)
    if out is None:
        stacks: Tensor = _operation(
            frames, age, index, num_stack, dtype, channels_last, float(scale), backend
        )
        return stacks
    _check_out(out, frames, (index.shape[0], num_stack, *frames.shape[2:]), channels_last)
    _operation_out(frames, age, index, num_stack, channels_last, float(scale), out, backend)
    return out
