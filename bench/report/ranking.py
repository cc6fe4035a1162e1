"""Who is fastest in each workload, and who is slower than was asked for."""

from collections.abc import Iterable, Sequence

from fastppo.bench.report.data import Entry, Group, ResultFile, ratio_between
from fastppo.bench.report.numbers import ratio
from fastppo.bench.report.table import title
from fastppo.bench.results.intervals import COVERS, OLDER
from fastppo.cgroups import BUSY

SURE = (COVERS, OLDER)
"""Labels of intervals that are taken for certain."""


def fastest(groups: Iterable[Group]) -> list[str]:
    """A sentence per workload of training rates: the fastest, and by how much."""
    return [found for group in groups if (found := _fastest(group)) is not None]


def _fastest(group: Group) -> str | None:
    timed = [entry for entry in group.entries if entry.value is not None]
    if group.kind != "train" or len(timed) < 2:
        return None
    first, second, *_ = sorted(timed, key=lambda e: e.value.value if e.value else 0.0, reverse=True)
    found = ratio_between(first, second)
    if found is None:
        return None
    if found.label not in SURE:
        certain = f"not certain: {found.label}"
    else:
        certain = "for certain" if found.low > 1 else "not for certain"
    return (
        f"{title(group)}: {first.impl} is fastest, {ratio(found.value)} times as fast as "
        f"{second.impl} ({ratio(found.low)} to {ratio(found.high)}), {certain}."
    )


def too_slow(run: ResultFile) -> list[tuple[Entry, str]]:
    """Implementations whose ratio to the base is below --fail-below for certain, and a sentence."""
    limit = run.record.get("fail_below")
    if limit is None:
        return []
    found = []
    for entry in run.entries:
        stored = entry.ratio if entry.kind == "train" and not _is_base(entry) else None
        if stored is not None and max(stored.value, stored.high) < limit:
            ends = f"{ratio(stored.low)} to {ratio(stored.high)}, {stored.label}"
            base = entry.detail["ratio"]["base"]
            said = f"{ratio(stored.value)} times the rate of {base} ({ends})"
            found.append((entry, f"{entry.impl} on {entry.id}: {said}, below {ratio(limit)}"))
    return found


def _is_base(entry: Entry) -> bool:
    stored = entry.detail["ratio"]
    return stored is not None and entry.impl == stored["base"]


def busy(run: ResultFile) -> Sequence[str]:
    """A warning where others were at work when the measurement began."""
    load = run.record["conditions"]["load"]
    cores = run.record["machine"]["cores"]
    if run.kind not in ("train", "learn", "env", "kernel") or not load or load[0] <= BUSY * cores:
        return []
    return [
        f"the machine was busy before: load {load[0]:.1f} on {cores} cores, so rates are low; "
        "ratios hold, within their intervals"
    ]
