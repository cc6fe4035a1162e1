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

from fastppo.kernels.act import triton_gpu as triton_act
from fastppo.kernels.adam import triton_gpu as triton_adam
from fastppo.kernels.advantage_stats import triton_gpu as triton_advantage_stats
from fastppo.kernels.frames import triton_gpu as triton_frames
from fastppo.kernels.gae import triton_gpu as triton_gae
from fastppo.kernels.gather import triton_gpu as triton_gather
from fastppo.kernels.loss import (
    triton_categorical,
    triton_gaussian,
    triton_narrow,
    triton_rows,
    triton_vocab,
)
from fastppo.kernels.moments import triton_gpu as triton_moments
from fastppo.kernels.tools import triton_options

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """One kernel in one shipped configuration."""

    name: str
    function: Any
    """The `triton.jit` function."""
    types: Mapping[str, str | tuple[str, ...]]
    """Triton type of each argument that is no constant; a tuple of them for a tuple of pointers."""
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
    signature: dict[str, Any] = {
        n: "constexpr" if n in spec.constants else spec.types[n] for n in names
    }
    # The launcher finds torch's allocations 16-byte aligned; without this no load is vectorised.
    aligned = [["tt.divisibility", 16]]
    attributes: dict[tuple[int, ...], Any] = {}
    for i, n in enumerate(names):
        if spec.function.params[i].do_not_specialize_on_alignment:
            continue
        if isinstance(signature[n], tuple):
            attributes |= {(i, j): aligned for j in range(len(signature[n]))}
        elif signature[n].startswith("*") or n in spec.multiples_of_16:
            attributes[i,] = aligned
    source = ASTSource(
        fn=spec.function, signature=signature, constexprs=spec.constants, attrs=attributes
    )
    compiled = triton_compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": spec.num_warps, **triton_options.OPTIONS},
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


def _gae_rows(name: str, num_steps: int, dtype: str, masked: bool) -> KernelSpec:
    """Env-major; `masked`: with lengths, and values whose rows are not aligned to 16 bytes."""
    function = triton_gae.gae_rows_kernel
    constants: dict[str, object] = dict(triton_gae.row_tiling(num_steps))
    num_warps = int(str(constants.pop("num_warps")))
    if not masked:
        constants["lengths_ptr"] = None
    pointers = {"terminated_ptr": "*i1", "truncated_ptr": "*i1", "lengths_ptr": "*i64"}
    strides = [n for n in function.arg_names if n.endswith("_stride")]
    return KernelSpec(
        name=name,
        function=function,
        types=_types(
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


def _loss(
    name: str,
    function: Any,
    masked: bool,
    constants: Mapping[str, object],
    num_warps: int = 4,
    multiples_of_16: tuple[str, ...] = (),
    types: Mapping[str, str] | None = None,
) -> KernelSpec:
    """A loss kernel with every optional term on; `masked`: with valid and action_mask too."""
    terms = {"NORM_ADV": True, "CLIP_VLOSS": True, "DUAL_CLIP": True}
    constants = {"normalizer_ptr": None, **constants, **terms}
    if not masked:
        constants |= {n: None for n in ("valid_ptr", "allowed_ptr") if n in function.arg_names}
    types = {"valid_ptr": "*i1", "allowed_ptr": "*i1", **(types or {})}
    return KernelSpec(
        name=name,
        function=function,
        types=_types(function, constants, **types),
        constants=constants,
        multiples_of_16=multiples_of_16,
        num_warps=num_warps,
    )


def _categorical(nvec: tuple[int, ...], masked: bool = False, dtype: str = "fp32") -> KernelSpec:
    """By the kernel that `triton_loss.categorical` chooses for these heads."""
    heads = "x".join(str(n) for n in nvec)
    name = f"categorical A={heads}{' masked' if masked else ''}"
    name += "" if dtype == "fp32" else f" {dtype}"
    types = {"logits_ptr": f"*{dtype}", "d_logits_ptr": f"*{dtype}", "actions_ptr": "*i64"}
    width = sum(nvec)
    if len(nvec) == 1 and width <= triton_narrow.MAX_WIDTH:
        narrow = {"WIDTH": width, "BLOCK_B": triton_narrow.BLOCK_B}
        return _loss(name, triton_narrow.narrow_kernel, masked, narrow, types=types)
    if len(nvec) == 1 and width > triton_categorical.MAX_WIDTH:
        tiling = triton_vocab.tiling(width, 4 if dtype == "fp32" else 2, width)
        num_warps = tiling.pop("num_warps")
        sizes = ("width", "logits_stride", "d_logits_stride")
        types |= dict.fromkeys((*sizes, "allowed_stride"), "i32")
        multiples = sizes if width % 16 == 0 else ()
        function = triton_vocab.vocab_kernel
        return _loss(name, function, masked, tiling, num_warps, multiples, types)
    block_b, block_a = triton_categorical.blocks(nvec)
    constants: dict[str, object] = {
        "NVEC": nvec,
        "STARTS": tuple(sum(nvec[:h]) for h in range(len(nvec))),
        "NUM_HEADS": len(nvec),
        "WIDTH": width,
        "BLOCK_B": block_b,
        "BLOCK_A": block_a,
    }
    return _loss(name, triton_categorical.categorical_kernel, masked, constants, types=types)


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


def _adam(name: str, function: Any, constants: Mapping[str, object]) -> KernelSpec:
    """A clip-and-Adam kernel that reads skip flag and learning rate, and zeroes the gradient."""
    if function is not triton_adam.norm_kernel:
        constants = {**constants, "ZERO_GRAD": True}
    return KernelSpec(
        name=name,
        function=function,
        types=_types(function, constants, skip_ptr="*i1", taken_ptr="*i1"),
        constants=constants,
        num_warps=16 if function is triton_adam.small_kernel else 4,
    )


def _moments(name: str, function: Any, width: int) -> KernelSpec:
    constants: dict[str, object] = dict(triton_moments.blocks(width))
    if function is triton_moments.finish_moments_kernel:
        del constants["BLOCK_R"]
    doubles = ("mean_ptr", "var_ptr", "count_ptr", "old_count_ptr", "partials_ptr")
    return KernelSpec(
        name=f"{name} D={width}",
        function=function,
        types=_types(function, constants, valid_ptr="*i1", **dict.fromkeys(doubles, "*fp64")),
        constants=constants,
        multiples_of_16=("num_columns",) if width % 16 == 0 else (),
    )


def _advantage_stats(batch_size: int) -> KernelSpec:
    kernel = triton_advantage_stats.advantage_stats_kernel
    constants: dict[str, object] = dict(triton_advantage_stats.tiling(batch_size))
    num_warps = int(str(constants.pop("num_warps")))
    types = {"valid_ptr": "*i1", "index_ptr": "*i64"}
    return KernelSpec(
        name=f"advantage_stats B={batch_size}",
        function=kernel,
        types=_types(kernel, constants, **types),
        constants=constants,
        multiples_of_16=("batch_size",),
        num_warps=num_warps,
    )


def _act(name: str, function: Any, constants: Mapping[str, object], **types: str) -> KernelSpec:
    """As captured in a graph: the step is read from memory."""
    constants = {"env_ids_ptr": None, **constants}
    halves = {n: "i32" for n in function.arg_names if n.endswith(("_env", "_low", "_high"))}
    return KernelSpec(
        name=f"act {name}",
        function=function,
        types=_types(function, constants, step_ptr="*i64", **halves, **types),
        constants=constants,
    )


def _act_categorical(nvec: tuple[int, ...], masked: bool = False) -> KernelSpec:
    block_b, block_a = triton_act.tiling(nvec)
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
    return _act(name, triton_act.categorical_act_kernel, constants, **pointers)


def _act_gaussian(width: int, shared: bool) -> KernelSpec:
    block_b, block_d = triton_act.tiling((width,))
    constants = {"WIDTH": width, "SHARED": shared, "BLOCK_B": block_b, "BLOCK_D": block_d}
    name = f"gaussian D={width}{'' if shared else ' log_std[B, D]'}"
    return _act(name, triton_act.gaussian_act_kernel, constants)


def _gather(name: str, types: tuple[str, ...], widths: tuple[int, ...]) -> KernelSpec:
    constants = triton_gather.tiling(widths)
    num_warps = int(str(constants.pop("num_warps")))
    plain = {"index_ptr": "*i64", "batch_size": "i32", "num_rows": "i32"}
    return KernelSpec(
        name=f"gather {name}",
        function=triton_gather.gather_kernel,
        types={"sources": types, "targets": types, **plain},
        constants=constants,
        num_warps=num_warps,
    )


def _frames(dtype: str, channels_last: bool) -> KernelSpec:
    """Atari's stacks of four frames of 84 x 84."""
    kernel = triton_frames.frames_kernel
    constants: dict[str, object] = dict(
        triton_frames.tiling(4 if dtype == "fp32" else 2, channels_last)
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
        types=_types(kernel, constants, **pointers),
        constants=constants,
        num_warps=num_warps,
    )


_MINIBATCH = ("*i64", "*fp32", "*fp32", "*fp32", "*fp32", "*u8")  # actions, four floats, valid


def shipped_kernels() -> list[KernelSpec]:
    """Every kernel, in the configurations of typical Atari, MuJoCo and multi-discrete tasks."""
    moments, finish = triton_rows.moments_kernel, triton_rows.finish_kernel
    moments_constants = {"NORM_ADV": True, "BLOCK_B": triton_rows.MOMENTS_BLOCK}
    finish_constants = {"normalizer_ptr": None, "BLOCK_P": triton_rows.FINISH_BLOCK}
    return [
        _gae("gae 128x1024", 128, 1024),
        _gae("gae 2048x8", 2048, 8),
        _gae("gae 128x65536", 128, 65536),
        _gae_rows("gae rows 512", 512, "fp32", masked=False),
        _gae_rows("gae rows 4096 bf16 lengths", 4096, "bf16", masked=True),
        _categorical((6,)),
        _categorical((18,), masked=True),
        _categorical((32,), masked=True),
        _categorical((6,), dtype="bf16"),
        _categorical((100,), masked=True),
        _categorical((512,), masked=True),
        _categorical((1000,), masked=True),
        _categorical((512, 512), masked=True),
        _categorical((3, 5, 2), masked=True),
        _categorical((32_768,)),
        _categorical((50_257,), masked=True, dtype="bf16"),
        _categorical((131_072,), dtype="bf16"),
        _categorical((131_072,), masked=True),
        _gaussian(6, shared=True),
        _gaussian(17, shared=True, masked=True),
        _gaussian(21, shared=False, masked=True),
        KernelSpec(
            name="moments",
            function=moments,
            types=_types(moments, moments_constants, valid_ptr="*i1"),
            constants=moments_constants,
        ),
        KernelSpec(
            name="finish",
            function=finish,
            types=_types(finish, finish_constants),
            constants=finish_constants,
        ),
        _advantage_stats(256),
        _advantage_stats(8192),
        _advantage_stats(32768),
        _act_categorical((6,)),
        _act_categorical((18,), masked=True),
        _act_categorical((3, 5, 2), masked=True),
        _act_categorical((100_000,)),
        _act_gaussian(6, shared=True),
        _act_gaussian(17, shared=True),
        _act_gaussian(21, shared=False),
        _gather("minibatch", _MINIBATCH, (1,) * 6),
        _gather("minibatch D=17", ("*fp32", *_MINIBATCH), (17, *(1,) * 6)),
        _gather("minibatch D=376", ("*fp32", *_MINIBATCH), (376, *(1,) * 6)),
        *(_frames(d, last) for d in ("fp32", "fp16", "bf16") for last in (False, True)),
        _adam(
            "clip_adam one program",
            triton_adam.small_kernel,
            {"BLOCK_P": triton_adam.SMALL_BLOCK},
        ),
        _adam("clip_adam norm", triton_adam.norm_kernel, {"BLOCK_P": triton_adam.BLOCK}),
        _adam(
            "clip_adam update",
            triton_adam.update_kernel,
            {"BLOCK_P": triton_adam.BLOCK, "BLOCK_N": triton_adam.MAX_PARTIALS},
        ),
        *(
            _moments(name, function, width)
            for width in (17, 376)
            for name, function in (
                ("moments partial", triton_moments.partial_moments_kernel),
                ("moments finish", triton_moments.finish_moments_kernel),
                ("normalize", triton_moments.normalize_kernel),
            )
        ),
    ]
