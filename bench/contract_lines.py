"""What is wrong with a line that an implementation printed: the parent's side of `contract.py`."""

import math
from typing import Any

from fastppo.bench.contract import PHASES, WORK_FIELDS


def fault(values: Any) -> str | None:
    """Why a parsed line is none of the contract's, in one line; None if it is one."""
    if not isinstance(values, dict):
        return "no JSON object"
    kind = values.get("event")
    if kind == "ready":
        work = values.get("work")
        if not isinstance(work, dict) or set(WORK_FIELDS) - set(work):
            return f"work lacks {sorted(set(WORK_FIELDS) - set(work or {}))}"
        return _work_fault(work)
    if kind == "update":
        if not _count(values.get("env_steps")) or not _count(values.get("episodes", 0)):
            return "env_steps and episodes must be whole numbers, not negative"
        mean = values.get("return_mean")
        if mean is not None and not _number(mean):
            return "return_mean must be a finite number or null"
        phases = values.get("phases")
        if phases is not None and not (
            isinstance(phases, dict)
            and set(phases) <= set(PHASES)
            and all(_number(seconds) for seconds in phases.values())
        ):
            return f"phases must be seconds by names among {', '.join(PHASES)}"
        return None
    return None if kind in ("tuned", "error") else "event is none of ready, update, tuned, error"


def _work_fault(work: dict[str, Any]) -> str | None:
    for name in ("parameters", "forward_flops", "gradient_steps_per_update", "obs_bytes"):
        if not _count(work[name]):
            return f"work.{name} must be a whole number, not negative"
    for name in ("rows_per_update", "minibatch_rows", "epochs"):
        if not _count(work[name]) or work[name] < 1:
            return f"work.{name} must be a whole number above 0"
    if not isinstance(work["trains_on_reset_rows"], bool):
        return "work.trains_on_reset_rows must be true or false"
    if not (
        isinstance(work["wrappers"], list) and all(isinstance(w, str) for w in work["wrappers"])
    ):
        return "work.wrappers must be a list of names"
    if not (isinstance(work["precision"], str) and isinstance(work["network"], str)):
        return "work.precision and work.network must be texts"
    return None


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
