"""What a number was measured on: machine and versions, for config.json and `fastppo doctor`."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from fastppo import __version__, cgroups
from fastppo.redact import redact

PACKAGES = ("torch", "triton", "numba", "numpy", "envpool", "gymnasium", "wandb")

VARIABLES = (
    # threads and their waiting: OpenMP, MKL, OpenBLAS, numba
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_SCHEDULE", "OMP_WAIT_POLICY",
    "OMP_PROC_BIND", "OMP_PLACES", "OMP_MAX_ACTIVE_LEVELS", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT",
    "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_HW_SUBSET", "MKL_NUM_THREADS", "MKL_DYNAMIC",
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_THREADING_LAYER", "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER",
    # what code is made or chosen
    "NUMBA_DISABLE_JIT", "NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_BOUNDSCHECK",
    "NUMBA_DEBUG", "NUMBA_LOOP_VECTORIZE", "NUMBA_SLP_VECTORIZE", "NUMBA_ENABLE_AVX",
    "NUMBA_DISABLE_INTEL_SVML", "TRITON_INTERPRET", "TRITON_DEBUG", "TRITON_DEFAULT_FP_FUSION",
    "TRITON_ALWAYS_COMPILE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "TORCH_COMPILE_DISABLE",
    "TORCHDYNAMO_DISABLE", "TORCHINDUCTOR_MAX_AUTOTUNE", "TORCHINDUCTOR_FREEZING",
    "TORCHINDUCTOR_CPP_WRAPPER", "TORCHINDUCTOR_COMPILE_THREADS",
    # the GPU
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING",
    "CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING", "XLA_FLAGS", "JAX_PLATFORMS",
    "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION",
    # memory, and Python itself
    "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_TOP_PAD_",
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "PYTHONMALLOC", "PYTHONOPTIMIZE",
)  # fmt: skip
"""Environment variables that can move a number (docs/surroundings.md); no other is kept."""
NUMBA_FILE = ".numba_config.yaml"
"""Read by numba in the working folder, as if it set NUMBA_* variables."""


def versions() -> dict[str, str | None]:
    """Installed version of everything that can move a number; None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "fastppo": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPUs."""
    import torch  # what only reads result files does without it

    return {
        "cpu": _cpu_model(),
        "cores": cgroups.available_cores(),
        "memory_gb": round(_memory_bytes() / 2**30, 1),
        "os": platform.platform(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def record() -> dict[str, Any]:
    """Machine, versions, variables and command of this process, without secrets."""
    return {
        "machine": machine(),
        "versions": versions(),
        "variables": variables(),
        "command": redact(sys.argv),
    }


def variables() -> dict[str, str]:
    """Those of VARIABLES that are set, without secrets, and whether numba reads a file instead."""
    found = {name: redact(os.environ[name]) for name in VARIABLES if name in os.environ}
    if os.path.exists(NUMBA_FILE):
        found[NUMBA_FILE] = "present"
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
