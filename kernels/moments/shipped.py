"""The kernels that ship: observations of HalfCheetah's width and of Humanoid's."""

from typing import Any

from fastppo.kernels.moments import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _moments(name: str, function: Any, width: int) -> KernelSpec:
    constants: dict[str, object] = dict(triton_gpu.blocks(width))
    if function is triton_gpu.finish_moments_kernel:
        constants = dict(triton_gpu.finish_blocks(triton_gpu.MAX_PARTS))
    doubles = ("mean_ptr", "var_ptr", "count_ptr", "old_count_ptr", "partials_ptr")
    return KernelSpec(
        name=f"{name} D={width}",
        function=function,
        types=types_of(function, constants, valid_ptr="*i1", **dict.fromkeys(doubles, "*fp64")),
        constants=constants,
        multiples_of_16=("num_columns",) if width % 16 == 0 else (),
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [
        _moments(name, function, width)
        for width in (17, 376)
        for name, function in (
            ("moments partial", triton_gpu.partial_moments_kernel),
            ("moments finish", triton_gpu.finish_moments_kernel),
            ("normalize", triton_gpu.normalize_kernel),
        )
    ]
