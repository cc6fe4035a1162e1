"""Registration of the operations with torch.library, so that torch.compile sees one node each.

Eager code calls the implementations directly: a registered operation costs 3 us of dispatch a call,
and 80 us more with autograd. Compiled code pays for no dispatch, and calls the operation.
"""

from collections.abc import Callable
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
        The operation, for compiled code to call.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastppo::{name}", fake, lib=LIBRARY)
    operation: Callable[..., Any] = getattr(torch.ops.fastppo, name).default
    LIBRARY.impl(name, _below_autograd(operation, attach), "Autograd", with_keyset=True)
    return operation


def _below_autograd(operation: Any, attach: Callable[..., Any] | None) -> Callable[..., Any]:
    """What runs when autograd meets the operation.

    Without it torch would record whatever the backend is made of: a gradient here, None there.
    """
    arguments_info = operation._schema.arguments
    written = [i for i, a in enumerate(arguments_info) if a.alias_info and a.alias_info.is_write]

    def kernel(keyset: Any, *arguments: Any) -> Any:
        check_not_transformed(str(operation))
        with torch._C._AutoDispatchBelowAutograd():
            keys = keyset & torch._C._after_autograd_keyset
            result = operation.redispatch(keys, *arguments)
        for argument in (arguments[i] for i in written):
            increment_version([argument] if isinstance(argument, Tensor) else argument or [])
        return result if attach is None else attach(result, *arguments)

    return kernel
