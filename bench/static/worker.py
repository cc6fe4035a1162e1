"""Compiles the kernels of one source tree for `fastppo static`; one JSON line per request.

    python -P worker.py triton|numba TREE SCRATCH

A file of its own that imports nothing of this tree: TREE may be another revision, and then every
`fastppo` in this process is that revision's. The counting is left to the parent, so that both
revisions are counted by the same code.
"""

import base64
import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
Server = Callable[[dict[str, Any]], Answer]


def isolate(scratch: str, target_cpu: str) -> None:
    """Drops every setting that moves the code generators, and pins numba's target.

    Must run before triton and numba are imported: they read their environment then.
    """
    for name in list(os.environ):
        moves = name.startswith(("NUMBA_", "TRITON_", "PTXAS_", "LLVM_"))
        if moves and name not in ("TRITON_CACHE_DIR", "TRITON_HOME"):
            del os.environ[name]
    os.environ["NUMBA_CPU_NAME"] = target_cpu
    # those that the name implies; unset, numba would add the features of this machine
    os.environ["NUMBA_CPU_FEATURES"] = ""
    # found or not by what else is installed
    os.environ["NUMBA_DISABLE_INTEL_SVML"] = "1"
    # numba does not keep the assembly in its cache, so an entry would leave nothing to count
    os.environ["NUMBA_CACHE_DIR"] = scratch
    # out of reach of a .numba_config.yaml
    os.chdir(scratch)


def triton_server() -> tuple[Answer, Server]:
    """What describes the tree's Triton kernels, and what answers {kernel: index, arch: 90}."""
    import triton

    from fastppo.kernels import aot

    specs = aot.shipped_kernels()

    def compile_one(request: dict[str, Any]) -> Answer:
        spec = specs[request["kernel"]]
        info = aot.compile_kernel(spec, request["arch"])
        return {
            "registers": info.registers,
            "spill_bytes": info.spill_bytes,
            "shared_bytes": info.shared_bytes,
            "num_warps": spec.num_warps,
            "cubin": base64.b64encode(info.cubin).decode(),
        }

    description = {
        "versions": {"triton": triton.__version__},
        "kernels": [spec.name for spec in specs],
        "nvdisasm": triton.knobs.nvidia.nvdisasm.path,
    }
    return description, compile_one


def numba_server(tree: Path) -> tuple[Answer, Server]:
    """What describes the tree's numba kernels, and what answers {kernel: index}.

    A kernel is a dispatcher with explicit signatures in a module numba_*.py under kernels/; those
    without are helpers, compiled into the kernels that call them. One of several signatures counts
    as several kernels. Its name begins with its file's, or with its folder's in a numba_cpu.py.
    """
    import numba
    from numba.core.registry import CPUDispatcher

    kernels: dict[str, str] = {}
    for path in sorted((tree / "fastppo" / "kernels").rglob("numba_*.py")):
        module = importlib.import_module(".".join(path.with_suffix("").relative_to(tree).parts))
        own = path.parent.name if path.stem == "numba_cpu" else path.stem.removeprefix("numba_")
        for name, value in sorted(vars(module).items()):
            # imported elsewhere it is listed once; explicit signatures forbid further compiling
            if (
                isinstance(value, CPUDispatcher)
                and value.py_func.__module__ == module.__name__
                and not value._can_compile
            ):
                for i, assembly in enumerate(value.inspect_asm().values()):
                    suffix = f" #{i + 1}" if len(value.signatures) > 1 else ""
                    kernels[f"{own}.{name}{suffix}"] = assembly

    description = {
        "versions": {
            "numba": numba.__version__,
            "llvmlite": version("llvmlite"),
            # numba compiles bytecode, which every minor version changes
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        },
        "kernels": list(kernels),
    }
    return description, lambda request: {"asm": kernels[request["kernel"]]}


def main() -> None:
    """Serves stdin; whatever a library prints goes to stderr and not among the answers."""
    compiler, tree, scratch, target_cpu = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    isolate(scratch, target_cpu)
    sys.path.insert(0, tree)
    kernels = importlib.import_module("fastppo.kernels")
    if not Path(str(kernels.__file__)).is_relative_to(tree):
        sys.exit(f"imported {kernels.__file__} instead of what is in {tree}")
    description, answer = triton_server() if compiler == "triton" else numba_server(Path(tree))
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(answer(request) if request else description) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
