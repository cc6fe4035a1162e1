"""The kernels that ship: Atari's and MuJoCo's rollouts, one that fills a GPU, rows of tokens."""

from fastppo.kernels.gae import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _gae(name: str, num_steps: int, num_envs: int) -> KernelSpec:
    constants: dict[str, object] = dict(triton_gpu.tiling(num_steps, num_envs))
    num_warps = int(str(constants.pop("num_warps")))
    flags = {"terminated_ptr": "*i1", "truncated_ptr": "*i1"}
    return KernelSpec(
        name=name,
        function=triton_gpu.gae_kernel,
        types=types_of(triton_gpu.gae_kernel, constants, **flags),
        constants=constants,
        multiples_of_16=("num_envs",),
        num_warps=num_warps,
    )


def _gae_rows(
    name: str, num_steps: int, dtype: str, masked: bool, holes: bool = False
) -> KernelSpec:
    """Env-major; `masked`: with lengths, and values whose rows are not aligned to 16 bytes."""
    function = triton_gpu.gae_rows_kernel
    constants: dict[str, object] = dict(triton_gpu.row_tiling(num_steps))
    num_warps = int(str(constants.pop("num_warps")))
    if not masked:
        constants["lengths_ptr"] = None
    if not holes:
        constants |= {"valid_ptr": None, "lambdas_ptr": None}
    pointers = {
        "terminated_ptr": "*i1",
        "truncated_ptr": "*i1",
        "lengths_ptr": "*i64",
        "valid_ptr": "*i1",
    }
    strides = [n for n in function.arg_names if n.endswith("_stride")]
    return KernelSpec(
        name=name,
        function=function,
        types=types_of(
            function,
            constants,
            rewards_ptr=f"*{dtype}",
            values_ptr=f"*{dtype}",
            **pointers,
            **dict.fromkeys(strides, "i32"),
        ),
        constants=constants,
        multiples_of_16=("num_steps", *(n for n in strides if n != "values_stride")),
        num_warps=num_warps,
    )


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [
        _gae("gae 128x1024", 128, 1024),
        _gae("gae 2048x8", 2048, 8),
        _gae("gae 128x65536", 128, 65536),
        _gae_rows("gae rows 512", 512, "fp32", masked=False),
        _gae_rows("gae rows 4096 bf16 lengths", 4096, "bf16", masked=True),
        _gae_rows("gae rows 4096 bf16 holes", 4096, "bf16", masked=True, holes=True),
    ]
