"""The loss kernels that ship: heads of Atari, MuJoCo, multi-discrete tasks, and vocabularies."""

from collections.abc import Mapping
from typing import Any

from fastppo.kernels.loss import (
    triton_categorical,
    triton_gaussian,
    triton_moments,
    triton_narrow,
    triton_rows,
    triton_vocab,
)
from fastppo.kernels.tools.triton_spec import KernelSpec, types_of


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
        types=types_of(function, constants, **types),
        constants=constants,
        multiples_of_16=multiples_of_16,
        num_warps=num_warps,
    )


def _categorical(
    nvec: tuple[int, ...], masked: bool = False, dtype: str = "fp32", tokens: bool = False
) -> KernelSpec:
    """By the kernel that `triton_gpu` chooses for these heads, or for `tokens` with every term."""
    heads = "x".join(str(n) for n in nvec)
    name = f"categorical A={heads}{' masked' if masked else ''}"
    name += "" if dtype == "fp32" else f" {dtype}"
    name += " tokens" if tokens else ""
    types = {"logits_ptr": f"*{dtype}", "d_logits_ptr": f"*{dtype}", "actions_ptr": "*i64"}
    width = sum(nvec)
    if not tokens and len(nvec) == 1 and width <= triton_narrow.MAX_WIDTH:
        narrow = {"WIDTH": width, "BLOCK_B": triton_narrow.BLOCK_B}
        return _loss(name, triton_narrow.narrow_kernel, masked, narrow, types=types)
    if tokens or (len(nvec) == 1 and width > triton_categorical.MAX_WIDTH):
        tiling: dict[str, object] = dict(
            triton_vocab.tiling(width, 4 if dtype == "fp32" else 2, width)
        )
        num_warps = int(str(tiling.pop("num_warps")))
        tiling["ESTIMATOR"] = 2
        if not tokens:
            tiling |= {"weights_ptr": None, "ref_log_probs_ptr": None}
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


def shipped() -> list[KernelSpec]:
    """The configurations that are compiled ahead of time and gated."""
    moments, finish = triton_moments.moments_kernel, triton_rows.finish_kernel
    moments_constants = {"NORM_ADV": True, "BLOCK_B": triton_moments.MOMENTS_BLOCK}
    partial, merge = triton_moments.partial_kernel, triton_moments.merge_kernel
    partial_constants = {"BLOCK_B": triton_moments.MOMENTS_BLOCK}
    merge_constants = {"NORM_ADV": True, "BLOCK_P": triton_moments.MERGE_BLOCK}
    finish_constants: dict[str, object] = {
        "normalizer_ptr": None,
        "BLOCK_P": triton_rows.FINISH_BLOCK,
    }
    return [
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
        _categorical((32_000,), masked=True, dtype="bf16", tokens=True),
        _categorical((151_936,), dtype="bf16", tokens=True),
        _gaussian(6, shared=True),
        _gaussian(17, shared=True, masked=True),
        _gaussian(21, shared=False, masked=True),
        KernelSpec(
            name="moments",
            function=moments,
            types=types_of(moments, moments_constants, valid_ptr="*i1"),
            constants=moments_constants,
        ),
        KernelSpec(
            name="moments partial",
            function=partial,
            types=types_of(partial, partial_constants, valid_ptr="*i1"),
            constants=partial_constants,
        ),
        KernelSpec(
            name="moments merge",
            function=merge,
            types=types_of(merge, merge_constants),
            constants=merge_constants,
        ),
        *(
            KernelSpec(
                name=name,
                function=finish,
                types=types_of(finish, finish_constants | {"SUMS": sums}),
                constants=finish_constants | {"SUMS": sums},
            )
            for name, sums in (("finish", 6), ("finish tokens", 7))
        ),
    ]
