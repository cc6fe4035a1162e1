"""Compiles the shipped Triton kernels for a GPU that is not there, and counts what came out.

Needs no driver, but a process without TRITON_INTERPRET. The interpreter accepts code that the
compiler rejects, so a machine without a GPU needs this to test that the kernels compile at all.
Registers and spills are comparable between runs of one Triton version only.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triton import compile as triton_compile
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import triton_categorical, triton_gae, triton_gaussian, triton_rows

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """One kernel in one shipped configuration."""

    name: str
    function: Any
    """The `triton.jit` function."""
    types: dict[str, str]
    """Triton type of each argument that is no constant."""
    constants: Mapping[str, object]
    """Value of each constexpr argument, and None for absent pointers."""
    multiples_of_16: tuple[str, ...] = ()
    """Integer arguments that the launcher would find divisible by 16."""
    num_warps: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """What the compiler made of a kernel."""

    registers: int
    """Per thread."""
    spill_bytes: int
    """Stack and local memory per thread."""
    shared_bytes: int
    """Per program."""
    cubin: bytes


def compile_kernel(spec: KernelSpec, arch: int) -> KernelInfo:
    """`spec` compiled for sm_`arch`.

    Raises:
        RuntimeError: this process runs Triton's interpreter, which cannot compile.
    """
    if not hasattr(spec.function, "arg_names") or knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: compile in a process without it")
    names = spec.function.arg_names
    signature = {n: "constexpr" if n in spec.constants else spec.types[n] for n in names}
    # The launcher finds torch's allocations 16-byte aligned; without this no load is vectorised.
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if signature[n].startswith("*") or n in spec.multiples_of_16
    }
    source = ASTSource(
        fn=spec.function, signature=signature, constexprs=spec.constants, attrs=attributes
    )
    compiled = triton_compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": spec.num_warps, "enable_fp_fusion": True},
    )
    cubin: bytes = compiled.asm["cubin"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def resource(key: str) -> int:
        found = re.search(rf"\b{key}:(\d+)", usage)
        if found is None:
            raise RuntimeError(f"cuobjdump reports no {key} for {spec.name}: {usage!r}")
        return int(found.group(1))

    return KernelInfo(
        registers=resource("REG"),
        spill_bytes=resource("STACK") + resource("LOCAL"),
        shared_bytes=compiled.metadata.shared,
        cubin=cubin,
    )


def _types(function: Any, constants: Mapping[str, object], **others: str) -> dict[str, str]:
    """By the naming of the kernels: pointers are *_ptr and num_*, *_size are int32."""

    def guess(name: str) -> str:
        if name.endswith("_ptr"):
            return "*fp32"
        return "i32" if name.startswith("num_") or name.endswith("_size") else "fp32"

    names = [n for n in function.arg_names if n not in constants]
    return {n: others.get(n, guess(n)) for n in names}


def _gae(name: str, num_steps: int, num_envs: int) -> KernelSpec:
    constants: dict[str, object] = dict(triton_gae.tiling(num_steps, num_envs))
    num_warps = int(str(constants.pop("num_warps")))
    flags = {"terminated_ptr": "*i1", "truncated_ptr": "*i1"}
    return KernelSpec(
        name=name,
        function=triton_gae.gae_kernel,
        types=_types(triton_gae.gae_kernel, constants, **flags),
        constants=constants,
        multiples_of_16=("num_envs",),
        num_warps=num_warps,
    )


def _loss(name: str, function: Any, masked: bool, constants: Mapping[str, object]) -> KernelSpec:
    """A loss kernel with every optional term on; `masked`: with valid and action_mask too."""
    constants = {**constants, "CLIP_VLOSS": True, "DUAL_CLIP": True}
    if not masked:
        constants |= {n: None for n in ("valid_ptr", "allowed_ptr") if n in function.arg_names}
    pointers = {"valid_ptr": "*i1", "allowed_ptr": "*i1"}
    if function is triton_categorical.categorical_kernel:
        pointers["actions_ptr"] = "*i64"
    return KernelSpec(
        name=name,
        function=function,
        types=_types(function, constants, **pointers),
        constants=constants,
    )


def _categorical(nvec: tuple[int, ...], masked: bool = False) -> KernelSpec:
    block_b, block_a = triton_categorical.blocks(nvec)
    constants: dict[str, object] = {
        "NVEC": nvec,
        "STARTS": tuple(sum(nvec[:h]) for h in range(len(nvec))),
        "NUM_HEADS": len(nvec),
        "WIDTH": sum(nvec),
        "BLOCK_B": block_b,
        "BLOCK_A": block_a,
    }
    heads = "x".join(str(n) for n in nvec)
    name = f"categorical A={heads}{' masked' if masked else ''}"
    return _loss(name, triton_categorical.categorical_kernel, masked, constants)


def _gaussian(width: int, shared: bool, masked: bool = False) -> KernelSpec:
    block_b, block_d = triton_gaussian.blocks(width)
    constants: dict[str, object] = {
        "WIDTH": width,
        "SHARED": shared,
        "BLOCK_B": block_b,
        "BLOCK_D": block_d,
    }
    name = f"gaussian D={width}{'' if shared else ' log_std[B, D]'}{' masked' if masked else ''}"
    return _loss(name, triton_gaussian.gaussian_kernel, masked, constants)


def shipped_kernels() -> list[KernelSpec]:
    """Every kernel, in the configurations of typical Atari, MuJoCo and multi-discrete tasks."""
    scales, finish = triton_rows.scales_kernel, triton_rows.finish_kernel
    scales_constants = {
        "normalizer_ptr": None,
        "NORM_ADV": True,
        "BLOCK_B": triton_rows.SCALES_BLOCK,
    }
    finish_constants = {"BLOCK_P": triton_rows.FINISH_BLOCK}
    return [
        _gae("gae 128x1024", 128, 1024),
        _gae("gae 2048x8", 2048, 8),
        _gae("gae 128x65536", 128, 65536),
        _categorical((6,)),
        _categorical((18,), masked=True),
        _categorical((3, 5, 2), masked=True),
        _gaussian(6, shared=True),
        _gaussian(17, shared=True, masked=True),
        _gaussian(21, shared=False, masked=True),
        KernelSpec(
            name="scales",
            function=scales,
            types=_types(scales, scales_constants, valid_ptr="*i1"),
            constants=scales_constants,
        ),
        KernelSpec(
            name="finish",
            function=finish,
            types=_types(finish, finish_constants),
            constants=finish_constants,
        ),
    ]
