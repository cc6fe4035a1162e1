"""Rows of many fields on the CPU: torch.index_select, which no numba kernel here has beaten.

A field of one number per row takes it 1.4 us, allocation included; from Python the allocation alone
takes as long. Wide rows it copies by memcpy on torch's own threads (docs/performance.md).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from fastppo.kernels.gather.spec import gather_rows

__all__ = ["gather_rows"]
