"""Compiles the shipped Triton kernels for a GPU that is not there, and counts what came out.

Needs no driver, but a process without TRITON_INTERPRET. The interpreter accepts code that the
compiler rejects, so a machine without a GPU needs this to test that the kernels compile at all.
Registers and spills are comparable between runs of one Triton version only.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from triton import compile as triton_compile
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastppo.kernels.backends import OPERATIONS
from fastppo.kernels.tools import triton_options
from fastppo.kernels.tools.triton_spec import KernelSpec

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200


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


def shipped_kernels() -> list[KernelSpec]:
    """Every kernel in its shipped configurations: what `kernels/<operation>/shipped.py` lists."""
    return [
        spec
        for operation in OPERATIONS
        for spec in import_module(f"fastppo.kernels.{operation}.shipped").shipped()
    ]
