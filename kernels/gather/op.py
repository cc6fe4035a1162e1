"""Rows of many fields at once: the public function, checked and sent to a backend."""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from fastppo.kernels.backends import implementation
from fastppo.kernels.registry import register


@cache
def _bytes_on(device: torch.device) -> Tensor:
    """An empty float32 tensor: a backend that serves float32 moves the bytes of any dtype."""
    return torch.zeros(0, dtype=torch.float32, device=device)


def implementation_for_bytes(operation: str, backend: str, device: torch.device) -> Any:
    """The module that runs `operation` on `device`, whatever the dtype."""
    return implementation(operation, backend, _bytes_on(device))


def _run(fields: Sequence[Tensor], index: Tensor, backend: str) -> list[Tensor]:
    module = implementation_for_bytes("gather", backend, index.device)
    return list(module.gather_rows(fields, index, None))


def _run_out(fields: Sequence[Tensor], index: Tensor, out: Sequence[Tensor], backend: str) -> None:
    module = implementation_for_bytes("gather", backend, index.device)
    module.gather_rows(fields, index, out)


def _fake(fields: Sequence[Tensor], index: Tensor, _backend: str) -> list[Tensor]:
    return [field.new_empty((index.shape[0], *field.shape[1:])) for field in fields]


def _fake_out(*_: object) -> None:
    return None


_operation = register(
    "gather_rows(Tensor[] fields, Tensor index, str backend) -> Tensor[]", _run, _fake
)
_operation_out = register(
    "gather_rows_out(Tensor[] fields, Tensor index, Tensor(a!)[] out, str backend) -> ()",
    _run_out,
    _fake_out,
)


def check_index(index: Tensor, device: torch.device) -> None:
    """Raises ValueError unless `index` is [B] int64 on `device`."""
    if index.ndim != 1 or index.dtype != torch.int64:
        raise ValueError(
            f"index has shape {list(index.shape)} and dtype {index.dtype}: expected [B] int64"
        )
    if index.device != device:
        raise ValueError(f"index is on {index.device}: expected {device}, as what it points into")


def _check(fields: Sequence[Tensor], index: Tensor, out: Sequence[Tensor] | None) -> None:
    if not fields:
        raise ValueError("fields is empty: expected at least one tensor")
    first = fields[0]
    for i, field in enumerate(fields):
        if field.ndim == 0 or field.shape[0] != first.shape[0]:
            rows = f"[{first.shape[0]}, ...]" if first.ndim else "[R, ...]"
            raise ValueError(f"fields[{i}] has shape {list(field.shape)}: expected {rows}")
        if field.device != first.device:
            raise ValueError(
                f"fields[{i}] is on {field.device}: expected {first.device}, as its siblings"
            )
    check_index(index, first.device)
    if out is None:
        return
    if len(out) != len(fields):
        raise ValueError(f"out has {len(out)} tensors: expected {len(fields)}, one per field")
    for i, (field, target) in enumerate(zip(fields, out, strict=True)):
        shape = (index.shape[0], *field.shape[1:])
        if (target.shape, target.dtype, target.device) != (shape, field.dtype, field.device):
            raise ValueError(
                f"out[{i}] is {list(target.shape)} {target.dtype} on {target.device}: expected "
                f"{list(shape)} {field.dtype} on {field.device}"
            )


def gather_rows(
    fields: Sequence[Tensor],
    index: Tensor,
    *,
    out: Sequence[Tensor] | None = None,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """field[index] of every field, in one launch; no gradient flows through it.

    Args:
        fields: [R, ...] each, of any dtypes: a rollout's fields with R = T * N rows.
        index: [B] int64 in 0 .. R - 1.
        out: where to write the results, [B, ...] each, or None for new tensors.

    Raises:
        ValueError: a shape, dtype or device is off; the message names it.
        IndexError: on the CPU, an index is out of range. On CUDA, where looking would wait for the
            device, the Triton kernel reads nothing for such a row: it is NaN in floating fields,
            zero (False) in all others, so that a loss over it is not finite or does not count it.
        BackendUnavailable: `backend` cannot serve these tensors.
    """
    _check(fields, index, out)
    fields = [field.detach() if field.requires_grad else field for field in fields]
    if out is None:
        return tuple(cast(list[Tensor], _operation(fields, index, backend)))
    _operation_out(fields, index, list(out), backend)
    return tuple(out)
