"""Registration of the operations with torch.library, so that torch.compile sees one node each.

What `register` returns is what the public functions call. In eager code it goes straight to the
implementation: a registered operation costs 3 us of dispatch a call, and 80 us more with autograd.
Compiled code pays for no dispatch, and gets the operation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fastppo.kernels.backends import check_not_transformed

LIBRARY = torch.library.Library("fastppo", "DEF")


def register(
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    attach: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Defines `fastppo::<schema>` for every device.

    Args:
        schema: in the syntax of torch.library; an argument that is written is `Tensor(a!)`.
        run: computes it on real tensors.
        fake: makes its outputs from shapes alone, for tracing.
        attach: called with the result and then the arguments, returns the result with its graph.
            None: no gradient flows through the operation.

    Returns:
        A function of the schema's arguments, by position, for compiled and eager code. It advances
        the version counters of what was written, which torch does not see.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastppo::{name}", fake, lib=LIBRARY)
    operation: Callable[..., Any] = getattr(torch.ops.fastppo, name).default
    written = _written(operation)
    below = _below_autograd(operation, written, attach)
    LIBRARY.impl(name, below, "Autograd", with_keyset=True)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return operation(*arguments)
        result = run(*arguments)
        _bump(arguments, written)
        return result if attach is None else attach(result, *arguments)

    return call


def _written(operation: Any) -> tuple[int, ...]:
    """Positions of the arguments that the schema says are written."""
    infos = (argument.alias_info for argument in operation._schema.arguments)
    return tuple(i for i, info in enumerate(infos) if info is not None and info.is_write)


def _bump(arguments: Sequence[Any], written: Sequence[int]) -> None:
    """Advances the versions of what was written."""
    tensors: list[Tensor] = []
    for i in written:
        argument = arguments[i]
        if isinstance(argument, Tensor):
            tensors.append(argument)
        elif argument is not None:
            tensors.extend(argument)
    if tensors:
        increment_version(tensors)


def _below_autograd(
    operation: Any, written: Sequence[int], attach: Callable[..., Any] | None
) -> Callable[..., Any]:
    """What runs when autograd meets the operation.

    Without it torch would record the operators that a backend happens to use: some with gradients,
    some without.
    """

    def kernel(keyset: Any, *arguments: Any) -> Any:
        check_not_transformed(str(operation))
        with torch._C._AutoDispatchBelowAutograd():
            keys = keyset & torch._C._after_autograd_keyset
            result = operation.redispatch(keys, *arguments)
        _bump(arguments, written)
        return result if attach is None else attach(result, *arguments)

    return kernel
