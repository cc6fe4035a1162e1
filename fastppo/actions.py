"""From what a policy chooses to what environments take, and the record of it that a run keeps."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """What one environment takes as an action.

    A policy chooses from 0 in every head, or any float in every component.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: Any
    """The least action: what choices count from."""
    high: Any
    """The largest, of floats."""
    is_discrete: bool

    @classmethod
    def of(cls, space: Any, dtype: Any, *, is_discrete: bool) -> Self:
        """Of a Gymnasium space that `tasks` takes.

        Args:
            dtype: what the environments read, which may be another than the space says.
        """
        low = getattr(space, "low", getattr(space, "start", 0))
        high = None if is_discrete else space.high
        return cls(tuple(space.shape), np.dtype(dtype), low, high, is_discrete)

    def fit(self, actions: Array, out: Array | None = None) -> Array:
        """The actions as environments take them: choices counted from `low`, floats in bounds.

        Args:
            actions: [N] or [N, heads] int choices from 0, or [N, D] floats.
            out: [N, *shape] to write to, of the dtype; None makes a new array.
        """
        if out is None:
            out = np.empty((len(actions), *self.shape), self.dtype)
        actions = actions.reshape(out.shape)
        if self.is_discrete:
            np.add(actions, self.low, out=out, casting="unsafe")
        else:
            np.minimum(np.maximum(actions, self.low), self.high, out=out, casting="same_kind")
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        high = None if self.high is None else np.asarray(self.high).tolist()
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "low": np.asarray(self.low).tolist(),
            "high": high,
            "is_discrete": self.is_discrete,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; KeyError, TypeError or ValueError where it is none."""
        dtype, high = np.dtype(values["dtype"]), values["high"]
        return cls(
            tuple(int(side) for side in values["shape"]),
            dtype,
            np.asarray(values["low"], dtype),
            None if high is None else np.asarray(high, dtype),
            bool(values["is_discrete"]),
        )
