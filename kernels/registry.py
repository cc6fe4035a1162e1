"""Registration of the operations with torch.library, so that torch.compile sees one node each.

Eager code calls the implementations directly: a registered operation costs 3 us of dispatch a call,
and 80 us more with autograd. Compiled code pays for no dispatch, and calls the operation.
"""

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("fastppo", "DEF")


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Defines `fastppo::<schema>` for every device.

    Args:
        schema: in the syntax of torch.library; an argument that is written is `Tensor(a!)`.
        run: computes it on real tensors.
        fake: makes its outputs from shapes alone, for tracing.

    Returns:
        The operation, for compiled code to call.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastppo::{name}", fake, lib=LIBRARY)
    operation: Callable[..., Any] = getattr(torch.ops.fastppo, name).default
    return operation
