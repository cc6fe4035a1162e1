"""What a Triton kernel is compiled with ahead of time: one shipped configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


def types_of(function: Any, constants: Mapping[str, object], **others: str) -> dict[str, str]:
    """By the naming of the kernels: pointers are *_ptr and num_*, *_size are int32."""

    def guess(name: str) -> str:
        if name.endswith("_ptr"):
            return "*fp32"
        return "i32" if name.startswith("num_") or name.endswith("_size") else "fp32"

    names = [n for n in function.arg_names if n not in constants]
    return {n: others.get(n, guess(n)) for n in names}
