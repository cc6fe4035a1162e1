"""What a piece of code does, counted exactly: the same on every machine, however busy."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SYNCS = frozenset({"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2"})
"""Operators that wait for a GPU, whatever the device is now: the host needs their result."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one call."""

    operators: dict[str, int]
    """Calls of each operator of torch, such as aten.add.Tensor."""
    allocated: int
    """Bytes of new tensors."""

    @property
    def syncs(self) -> dict[str, int]:
        """The operators that make the host wait."""
        parts = {name: name.split(".")[1] for name in self.operators if "." in name}
        return {name: self.operators[name] for name, short in parts.items() if short in SYNCS}


def counted(function: Callable[[], Any]) -> Counts:
    """Calls the function once."""
    with _Counted() as mode:
        function()
    return Counts(dict(mode.operators), mode.allocated)


class _Counted(TorchDispatchMode):
    """Sees every operator that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()
        self.allocated = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.operators[str(func)] += 1
        known = {_storage(one) for one in _tensors((args, kwargs))}
        for one in _tensors(made):
            if _storage(one) not in known:
                known.add(_storage(one))
                self.allocated += one.untyped_storage().nbytes()
        return made


def _tensors(values: Any) -> Iterator[Tensor]:
    return (one for one in tree_leaves(values) if isinstance(one, Tensor))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
