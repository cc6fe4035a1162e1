"""The kernel that ships: minibatches of a small run, a large one, and a whole rollout."""

from fastppo.kernels.advantage_stats import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _advantage_stats(batch_size: int) -> KernelSpec:
    kernel = triton_gpu.advantage_stats_kernel
    constants: dict[str, object] = dict(triton_gpu.tiling(batch_size))
    num_warps = int(str(constants.pop("num_warps")))
    types = {"valid_ptr": "*i1", "index_ptr": "*i64"}
    return KernelSpec(
        name=f"advantage_stats B={batch_size}",
        function=kernel,
        types=types_of(kernel, constants, **types),
        constants=constants,
        multiples_of_16=("batch_size",),
        num_warps=num_warps,
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [_advantage_stats(batch_size) for batch_size in (256, 8192, 32768)]
