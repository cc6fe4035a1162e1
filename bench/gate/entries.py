"""Entries of a gate's result file: what was timed, what is the same, and what was counted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastppo.bench.gate import rule
from fastppo.bench.gate.pairs import Series
from fastppo.bench.gate.signed_rank import middle
from fastppo.bench.gate.subject import PREFIX, Better

UNITS = {"memory/": "bytes", "learning/final/": "of the best", "learning/steps/": "env steps"}
"""By the beginning of a name; all else takes seconds. `learning.costs_of` says of the best."""
NAMED = 8
"""Operators or modules that a finding names."""


def timed(series: Series, again: Series | None, better: Better = "lower") -> dict[str, Any]:
    """A benchmark that was measured in pairs.

    Args:
        again: the second run of one that was suspected.
        better: of what is shown: where higher is, the rate, of which the cost is the inverse.
    """
    found = None
    if len(series.differences) >= rule.FIRST_LOOK:
        bounds = middle(series.differences, rule.FIRST_ALPHA)
        ends = {"value": bounds.value, "low": bounds.low, "high": bounds.high}
        found = {name: None if math.isinf(x) else math.exp(x) for name, x in ends.items()}
    units = (unit for prefix, unit in UNITS.items() if series.name.startswith(prefix))
    unit = next(units, "s")
    head, base = series.head, series.base
    if series.name.startswith(PREFIX):
        unit = series.name.removeprefix(PREFIX)
        if better == "higher":
            head, base = ([1.0 / cost for cost in side] for side in (head, base))
    notes = []
    if series.verdict == rule.INCONCLUSIVE and len(series.differences) >= rule.SECOND_LOOK:
        alpha = rule.FALSE_ALARM / 2
        least = rule.detectable(series.differences, series.tolerance, alpha)
        if math.isfinite(least):
            notes.append(f"a slow-down below {least:.0%} would not have shown")
    notes += _again(again)
    return _entry(
        series.name, series.verdict, head, base, unit=unit, clock="wall", better=better,
        change=found, tolerance=series.tolerance, note="; ".join(notes),
        differences=series.differences,
    )  # fmt: skip


def confirmed(entry: Mapping[str, Any], again: Series) -> dict[str, Any]:
    """A benchmark that another run suspected, with what this one says of it."""
    said = entry["gate"]
    notes = [said["note"], *_again(again)]
    verdict = rule.confirm(said["verdict"], again.verdict)
    return {**entry, "gate": {**said, "verdict": verdict, "note": "; ".join(filter(None, notes))}}


def _again(series: Series | None) -> list[str]:
    if series is None or not series.differences:
        return []
    return [f"once more: {math.exp(middle(series.differences, rule.FIRST_ALPHA).value):.2f} times"]


def same(name: str) -> dict[str, Any]:
    """A benchmark whose code is the same on both sides: it was not timed."""
    return _entry(name, rule.PASS, [], [], note="same code")


def counted(
    names: Iterable[str], base: Mapping[str, Any], head: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Exact counts of both sides: what an update does, and imports at the start.

    Args:
        names: such as operators/TASK or modules/TASK.
        base, head: `counts` by task, kind and what is counted, and `modules`.
    """
    entries = []
    for name in names:
        kind, _, task = name.partition("/")
        if kind == "modules":
            sides = [dict.fromkeys(side["modules"], 1) for side in (base, head)]
        else:
            sides = [side["counts"][task][kind] for side in (base, head)]
        entries.append(_exact(name, *sides))
    return entries


def _exact(name: str, base: Mapping[str, int], head: Mapping[str, int]) -> dict[str, Any]:
    more = {key: head[key] - base.get(key, 0) for key in head if head[key] > base.get(key, 0)}
    before, now = sum(base.values()), sum(head.values())
    # another operator in place of one that was there is not a finding; another import or wait is
    worse = now > before if name.startswith("operators/") else bool(more)
    note = ""
    if worse:
        ranked = sorted(more, key=lambda key: -more[key])
        note = "more: " + ", ".join(f"{key} +{more[key]}" for key in ranked[:NAMED])
        note += f" and {len(ranked) - NAMED} others" if len(ranked) > NAMED else ""
    verdict = rule.REGRESSION if worse else rule.IMPROVED if now < before else rule.PASS
    change = {"value": now / max(1, before), "low": None, "high": None}
    return _entry(
        name,
        verdict,
        [float(now)],
        [float(before)],
        unit="bytes" if name.startswith("bytes/") else "count",
        change=change,
        note=note,
    )


def _entry(
    name: str,
    verdict: str,
    head: Sequence[float],
    base: Sequence[float],
    *,
    unit: str = "s",
    clock: str = "none",
    better: Better = "lower",
    differences: Sequence[float] = (),
    change: Mapping[str, float | None] | None = None,
    tolerance: float = 0.0,
    note: str = "",
) -> dict[str, Any]:
    return {
        "id": f"gate/{name}",
        "impl": "head",
        "unit": unit,
        "better": better,
        "clock": clock,
        "launches": [{"order": i, "samples": [cost]} for i, cost in enumerate(head)]
        or [{"order": 0, "samples": []}],
        "gate": {
            "verdict": verdict,
            "change": change,
            "tolerance": tolerance,
            "pairs": len(base),
            "base": list(base),
            "differences": [round(one, 5) for one in differences],
            "note": note,
        },
    }


def failures_of(failed: Mapping[tuple[str, str], str]) -> list[dict[str, str]]:
    """What could not be measured on a side, as a result file holds it."""
    return [
        {"id": f"gate/{name}", "impl": side, "reason": reason}
        for (side, name), reason in failed.items()
    ]
