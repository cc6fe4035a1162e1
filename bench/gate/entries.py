"""Entries of a gate's result file: what was timed, what is the same, and what was counted."""

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import Any

from fastppo.bench.gate import rule
from fastppo.bench.gate.pairs import Series
from fastppo.bench.gate.revisions import GateSide
from fastppo.bench.gate.signed_rank import middle

NAMED = 8
"""Operators or modules that a finding names."""


def timed(series: Series, again: Series | None) -> dict[str, Any]:
    """A benchmark that was measured in pairs.

    Args:
        again: the second run of one that was suspected.
    """
    found = None
    if len(series.differences) >= rule.FIRST_LOOK:
        bounds = middle(series.differences, rule.FIRST_ALPHA)
        ends = {"value": bounds.value, "low": bounds.low, "high": bounds.high}
        found = {name: None if math.isinf(x) else math.exp(x) for name, x in ends.items()}
    unit = "bytes" if series.name.startswith("memory/") else "s"
    notes = []
    if series.verdict == rule.INCONCLUSIVE and series.differences:
        alpha = rule.FALSE_ALARM / 2
        least = rule.detectable(series.differences, series.tolerance, alpha)
        notes.append(f"a slow-down below {least:.0%} would not have shown")
    if again is not None and again.differences:
        value = math.exp(middle(again.differences, rule.FIRST_ALPHA).value)
        notes.append(f"once more: {value:.2f} times")
    return _entry(series.name, unit, "wall", series.head) | {
        "gate": {
            "verdict": series.verdict,
            "change": found,
            "tolerance": series.tolerance,
            "pairs": len(series.base),
            "base": series.base,
            "note": "; ".join(notes),
        }
    }


def same(name: str) -> dict[str, Any]:
    """A benchmark whose code is the same on both sides: it was not timed."""
    return _entry(name, "s", "none", []) | {
        "gate": {
            "verdict": rule.PASS,
            "change": None,
            "tolerance": 0.0,
            "pairs": 0,
            "base": [],
            "note": "same code",
        }
    }


def counted(
    pair: tuple[GateSide, GateSide],
    start: str,
    only: str,
    counts: Callable[[GateSide], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Exact counts of both sides: operators of torch in an update, and imports at the start.

    Args:
        start: task of the short run whose imports count.
        only: pattern of the names that are wanted.
        counts: of a side: `counts` by task and operator, and `modules`.
    """
    names = (f"modules/{start}", "operators/*")
    if not any(fnmatch(name, only) or fnmatch(only, name) for name in names):
        return []
    base, head = map(counts, pair)
    entries = [
        _exact(f"operators/{task}", base["counts"].get(task, {}), head["counts"][task])
        for task in head["counts"]
    ]
    before, after = ({name: 1 for name in side["modules"]} for side in (base, head))
    entries.append(_exact(f"modules/{start}", before, after))
    return [entry for entry in entries if fnmatch(entry["id"].removeprefix("gate/"), only)]


def _exact(name: str, base: Mapping[str, int], head: Mapping[str, int]) -> dict[str, Any]:
    more = {key: head[key] - base.get(key, 0) for key in head if head[key] > base.get(key, 0)}
    sums = sum(base.values()), sum(head.values())
    # another operator in place of one that was there is not a finding; another import is
    worse = bool(more) if name.startswith("modules/") else sums[1] > sums[0]
    note = ""
    if worse:
        ranked = sorted(more, key=lambda key: -more[key])
        note = "more: " + ", ".join(f"{key} +{more[key]}" for key in ranked[:NAMED])
        note += f" and {len(ranked) - NAMED} others" if len(ranked) > NAMED else ""
    better = rule.IMPROVED if sums[1] < sums[0] else rule.PASS
    change = {"value": sums[1] / max(1, sums[0]), "low": None, "high": None}
    return _entry(name, "count", "none", [float(sums[1])]) | {
        "gate": {
            "verdict": rule.REGRESSION if worse else better,
            "change": change,
            "tolerance": 0.0,
            "pairs": 1,
            "base": [float(sums[0])],
            "note": note,
        }
    }


def _entry(name: str, unit: str, clock: str, head: list[float]) -> dict[str, Any]:
    return {
        "id": f"gate/{name}",
        "impl": "head",
        "unit": unit,
        "better": "lower",
        "clock": clock,
        "launches": [{"order": i, "samples": [cost]} for i, cost in enumerate(head)]
        or [{"order": 0, "samples": []}],
    }


def failures_of(failed: Mapping[tuple[str, str], str]) -> list[dict[str, str]]:
    """What could not be measured on a side, as a result file holds it."""
    return [
        {"id": f"gate/{name}", "impl": side, "reason": reason}
        for (side, name), reason in failed.items()
    ]
