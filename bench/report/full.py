"""Every number of a group, one column per implementation: what the page unfolds."""

from collections.abc import Callable, Iterable
from typing import Any

from fastppo.bench.contract import PHASES
from fastppo.bench.report.data import CEILINGS, Entry, Group, base_of
from fastppo.bench.report.numbers import (
    NOT_REACHED,
    amount,
    count,
    ends,
    mebibytes,
    of_ceiling,
    seconds,
    share,
    short,
    until,
    with_ends,
)
from fastppo.bench.report.table import Table, label_of
from fastppo.bench.report.tables_learn import WAITS, until_threshold
from fastppo.bench.report.tables_profile import operators

Write = Callable[[Entry], str]
MOST = 20
"""Operators of a profile; its file has all."""


def full_tables(group: Group) -> Iterable[Table]:
    """All numbers, then the work manifests, of training or learning runs."""
    if group.kind == "profile":
        yield from (operators(one, MOST) for one in group.entries if "facts" in one.detail)
    if group.kind not in ("train", "learn") or not group.entries:
        return
    names = [entry.impl for entry in group.entries]
    lines = _training(group) if group.kind == "train" else _learning(group)
    rows = [(name, *(cell(entry) for entry in group.entries)) for name, cell in lines]
    kept = [row for row in rows if any(cell not in ("", "-") for cell in row[1:])]
    yield Table("all numbers", names, kept)
    work = _work(group, names)
    if work.rows:
        yield work


def _training(group: Group) -> list[tuple[str, Write]]:
    bases = (e.detail["ratio"]["base"] for e in group.entries if e.detail["ratio"])
    base = next(bases, "the base")
    horizons = sorted({int(t) for e in group.entries for t in e.detail["amortised"]})
    return [
        ("environment steps/s, steady", lambda e: count(e.value.value) if e.value else "-"),
        (f"  {label_of([group])}", lambda e: ends(e.value, count)),
        ("frames/s, steady", lambda e: count(e.detail["frames_per_s"])),
        (f"ratio to {base}", _ratio),
        ("  rounds of the ratio", lambda e: str((e.detail["ratio"] or {}).get("rounds", "-"))),
        *((f"share of {name}", _share(key)) for key, name in CEILINGS.items()),
        ("learning", lambda e: e.detail["learning"]),
        ("steady from update", lambda e: _steady(e.detail["steady"])),
        (
            "cold start, to the first update done",
            lambda e: seconds(e.detail["wall"]["cold_start_s"]),
        ),
        ("compilation", lambda e: seconds(e.detail["wall"]["compile_s"])),
        ("cold total of the process", lambda e: seconds(e.detail["wall"]["cold_total_s"])),
        *(
            (f"environment steps/s over {short(h)} steps, start included", _over(h))
            for h in horizons
        ),
        ("peak memory, process", lambda e: mebibytes(e.detail["memory"]["process_peak_bytes"])),
        ("peak memory, device", lambda e: mebibytes(e.detail["memory"]["device_peak_bytes"])),
        ("environment threads", lambda e: count(e.detail["threads"]["env"])),
        ("torch threads", lambda e: count(e.detail["threads"]["torch"])),
        ("torch threads tried, environment steps/s", _tried),
        *((f"{phase}, share of wall time", _phase(phase)) for phase in PHASES),
        ("version", lambda e: str(e.detail["info"].get("version", "-"))),
        ("samples in launches", lambda e: f"{len(e.samples)} in {len(e.launches)}"),
    ]


def _learning(group: Group) -> list[tuple[str, Write]]:
    def middle(e: Entry) -> str:
        return with_ends(e.value)

    def median(what: str) -> Write:
        return lambda e: until(until_threshold(e, what), WAITS[what])

    def seed(key: str, write: Callable[[float | None], str]) -> Write:
        return lambda e: ", ".join(write(curve[key]) for curve in e.detail["curves"])

    return [
        (f"final return, interquartile mean [{label_of([group])}]", middle),
        ("final return of each seed", lambda e: ", ".join(count(x) for x in e.samples)),
        ("seeds", seed("seed", count)),
        ("threshold", lambda e: count(e.detail["threshold"])),
        ("median steps to threshold", median("steps")),
        ("median time to threshold", median("seconds")),
        ("steps to threshold of each seed", seed("steps_to_threshold", _or_not(count))),
        ("time to threshold of each seed", seed("seconds_to_threshold", _or_not(seconds))),
        ("environment steps in all", seed("total_steps", count)),
        ("wall time in all", seed("total_s", seconds)),
    ]


def _or_not(write: Callable[[float | None], str]) -> Callable[[float | None], str]:
    return lambda value: NOT_REACHED if value is None else write(value)


def _ratio(entry: Entry) -> str:
    found = entry.ratio
    return with_ends(found) + (f", {found.label}" if found else "")


def _share(key: str) -> Write:
    return lambda entry: of_ceiling(entry.detail["shares"].get(key))


def _over(horizon: int) -> Write:
    return lambda entry: count(entry.detail["amortised"].get(str(horizon)))


def _phase(phase: str) -> Write:
    def cell(entry: Entry) -> str:
        phases = entry.detail["phases"]
        return share(phases[phase] / phases["wall"]) if phases and phases["wall"] else "-"

    return cell


def _steady(steady: dict[str, Any]) -> str:
    return f"{steady['index']}" if steady["reached"] else "never steady"


def _tried(entry: Entry) -> str:
    return ", ".join(f"{n}: {count(rate)}" for n, rate in entry.detail["threads"]["tried"].items())


def _work(group: Group, names: list[str]) -> Table:
    """The manifests; what differs from the base (or else the first) is marked."""
    works = [entry.detail.get("work") or {} for entry in group.entries]
    stored = next((e.detail["ratio"] for e in group.entries if e.detail.get("ratio")), None)
    base = base_of(group, str(stored["base"])) if stored else None
    wanted = (base.detail.get("work") if base else None) or works[0]
    keys = list(dict.fromkeys(key for work in works for key in work))
    rows = [(key.replace("_", " "), *(_plain(work.get(key)) for work in works)) for key in keys]
    marked = {
        (i, j + 1)
        for i, key in enumerate(keys)
        for j, work in enumerate(works)
        if work and work.get(key) != wanted.get(key)
    }
    return Table("work of an update", names, rows, frozenset(marked))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)


def sample_table(group: Group) -> Table:
    """Middle, interval and number of the samples of every result: of kinds without a table."""
    rows = []
    for entry in group.entries:
        value, unit = entry.value, entry.unit
        reach = ends(value, lambda x, u=unit: amount(x, u))
        middle = amount(value.value, unit) if value else "-"
        rows.append(
            (f"{entry.id} {entry.clock}", entry.impl, middle, reach, str(len(entry.samples)))
        )
    return Table(
        f"all results of {group.title}",
        ("implementation", "median", label_of([group]), "samples"),
        rows,
    )
