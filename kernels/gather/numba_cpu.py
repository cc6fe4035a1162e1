"""Rows of many fields on the CPU: torch.index_select, which no numba kernel here has beaten.

A field of one number per row costs it 1.4 us with the allocation, which alone costs 1.4 us from
Python; wide rows it copies with memcpy on torch's own threads (numbers in docs/kernels.md).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from fastppo.kernels.gather.spec import gather_rows

__all__ = ["gather_rows"]
