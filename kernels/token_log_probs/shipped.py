"""The kernels that ship: vocabularies of today's models, scored and differentiated."""

from typing import Any

from fastppo.kernels.token_log_probs import triton_gpu
from fastppo.kernels.tools import triton_softmax
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _spec(name: str, function: Any, width: int, dtype: str, masked: bool) -> KernelSpec:
    element_size = 4 if dtype == "fp32" else 2
    constants: dict[str, object] = dict(triton_softmax.tiling(width, element_size))
    num_warps = int(str(constants.pop("num_warps")))
    if not masked:
        constants["valid_ptr"] = None
    types = {
        "logits_ptr": f"*{dtype}",
        "d_logits_ptr": f"*{dtype}",
        "tokens_ptr": "*i64",
        "valid_ptr": "*i1",
        "width": "i32",
        "logits_stride": "i32",
    }
    return KernelSpec(
        name=f"{name} V={width} {dtype}{' masked' if masked else ''}",
        function=function,
        types=types_of(function, constants, **types),
        constants=constants,
        multiples_of_16=("width", "logits_stride") if width % 16 == 0 else (),
        num_warps=num_warps,
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    shapes = ((32_000, "fp32", False), (151_936, "bf16", True))
    kernels = (
        ("token log-probs", triton_gpu.log_probs_kernel),
        ("token log-probs gradient", triton_gpu.gradient_kernel),
    )
    return [_spec(name, function, *shape) for name, function in kernels for shape in shapes]
