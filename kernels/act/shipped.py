"""The acting kernels that ship: Atari's and MuJoCo's actions, several heads, and a vocabulary."""

from collections.abc import Mapping
from typing import Any

from fastppo.kernels.act import triton_gpu
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


def _act(name: str, function: Any, constants: Mapping[str, object], **types: str) -> KernelSpec:
    """As captured in a graph: the step is read from memory."""
    constants = {"env_ids_ptr": None, **constants}
    halves = {n: "i32" for n in function.arg_names if n.endswith(("_env", "_low", "_high"))}
    return KernelSpec(
        name=f"act {name}",
        function=function,
        types=types_of(function, constants, step_ptr="*i64", **halves, **types),
        constants=constants,
    )


def _act_categorical(nvec: tuple[int, ...], masked: bool = False) -> KernelSpec:
    block_b, block_a = triton_gpu.tiling(nvec)
    constants: dict[str, object] = {
        "NVEC": nvec,
        "STARTS": tuple(sum(nvec[:h]) for h in range(len(nvec))),
        "NUM_HEADS": len(nvec),
        "WIDTH": sum(nvec),
        "BLOCK_B": block_b,
        "BLOCK_A": block_a,
    }
    pointers = {"actions_ptr": "*i64"}
    if masked:
        pointers |= {"allowed_ptr": "*i1"}
    else:
        constants["allowed_ptr"] = None
    name = f"categorical A={'x'.join(str(n) for n in nvec)}{' masked' if masked else ''}"
    return _act(name, triton_gpu.categorical_act_kernel, constants, **pointers)


def _act_gaussian(width: int, shared: bool) -> KernelSpec:
    block_b, block_d = triton_gpu.tiling((width,))
    constants = {"WIDTH": width, "SHARED": shared, "BLOCK_B": block_b, "BLOCK_D": block_d}
    name = f"gaussian D={width}{'' if shared else ' log_std[B, D]'}"
    return _act(name, triton_gpu.gaussian_act_kernel, constants)


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    return [
        _act_categorical((6,)),
        _act_categorical((18,), masked=True),
        _act_categorical((3, 5, 2), masked=True),
        _act_categorical((100_000,)),
        _act_gaussian(6, shared=True),
        _act_gaussian(17, shared=True),
        _act_gaussian(21, shared=False),
    ]
