"""How every Triton kernel of this package is compiled, by its launch or ahead of time."""

from typing import Any

# Set here, because 3.9 warns of a default that 3.10 changes. Multiplications and additions contract
# to FMA, as with numba_memory.OPTIONS on the CPU. The interpreter ignores it.
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}
