"""The kernels that ship: Atari's stacks in every dtype and layout."""

from fastppo.kernels.frames import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _frames(dtype: str, channels_last: bool) -> KernelSpec:
    """Atari's stacks of four frames of 84 x 84."""
    kernel = triton_gpu.frames_kernel
    constants: dict[str, object] = dict(
        triton_gpu.tiling(4 if dtype == "fp32" else 2, channels_last)
    )
    num_warps = int(str(constants.pop("num_warps")))
    constants |= {"NUM_PIXELS": 84 * 84, "NUM_STACK": 4, "CHANNELS_LAST": channels_last}
    pointers = {
        "frames_ptr": "*u8",
        "age_ptr": "*u8",
        "index_ptr": "*i64",
        "out_ptr": f"*{dtype}",
    }
    return KernelSpec(
        name=f"frames {dtype}{' channels last' if channels_last else ''}",
        function=kernel,
        types=types_of(kernel, constants, **pointers),
        constants=constants,
        num_warps=num_warps,
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [_frames(d, last) for d in ("fp32", "fp16", "bf16") for last in (False, True)]
