"""The kernels that ship: one program for small networks, two launches for large ones."""

from collections.abc import Mapping
from typing import Any

from fastppo.kernels.adam import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _adam(name: str, function: Any, constants: Mapping[str, object]) -> KernelSpec:
    """A clip-and-Adam kernel that reads skip flag and learning rate, and zeroes the gradient."""
    if function is not triton_gpu.norm_kernel:
        constants = {**constants, "ZERO_GRAD": True}
    return KernelSpec(
        name=name,
        function=function,
        types=types_of(function, constants, skip_ptr="*i1", taken_ptr="*i1"),
        constants=constants,
        num_warps=16 if function is triton_gpu.small_kernel else 4,
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [
        _adam(
            "clip_adam one program",
            triton_gpu.small_kernel,
            {"BLOCK_P": triton_gpu.SMALL_BLOCK},
        ),
        _adam("clip_adam norm", triton_gpu.norm_kernel, {"BLOCK_P": triton_gpu.BLOCK}),
        _adam(
            "clip_adam update",
            triton_gpu.update_kernel,
            {"BLOCK_P": triton_gpu.BLOCK, "BLOCK_N": triton_gpu.MAX_PARTIALS},
        ),
    ]
