"""The kernels that ship: a minibatch of images' fields, of short and of long observations."""

from fastppo.kernels.gather import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec

_MINIBATCH = ("*i64", "*fp32", "*fp32", "*fp32", "*fp32", "*u8")
"""Actions, four floats, valid."""


def _gather(name: str, types: tuple[str, ...], widths: tuple[int, ...]) -> KernelSpec:
    constants = triton_gpu.tiling(widths)
    num_warps = int(str(constants.pop("num_warps")))
    plain = {"index_ptr": "*i64", "batch_size": "i32", "num_rows": "i32"}
    return KernelSpec(
        name=f"gather {name}",
        function=triton_gpu.gather_kernel,
        types={"sources": types, "targets": types, **plain},
        constants=constants,
        num_warps=num_warps,
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [
        _gather("minibatch", _MINIBATCH, (1,) * 6),
        _gather("minibatch D=17", ("*fp32", *_MINIBATCH), (17, *(1,) * 6)),
        _gather("minibatch D=376", ("*fp32", *_MINIBATCH), (376, *(1,) * 6)),
    ]
