"""Tables of a profile: rate, phases, operators, what happens per env step, and the limits."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.numbers import count, mebibytes, of_ceiling, seconds, share, with_ends
from fastppo.bench.report.table import Table, label_of, title

TOP = 12
"""Operators shown; the page has more, the file all."""


def profiles(groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
    """All of it, entry by entry."""
    yield _rates(groups, narrow)
    for entry in (entry for group in groups for entry in group.entries):
        if "facts" in entry.detail:
            yield _phases(entry)
            yield operators(entry, TOP)
            yield _per_step(entry)
            yield _limits(entry)


def _rates(groups: Sequence[Group], narrow: bool) -> Table:
    rate = "env steps/s" if narrow else f"env steps/s [{label_of(groups)}]"
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((title(group),))
        for entry in group.entries:
            detail, value = entry.detail, entry.value
            text = "-" if value is None else count(value.value)
            profiled = detail.get("profiled_env_steps_per_s") or ()
            rows.append(
                (
                    f"  {entry.impl} {_run_name(detail)}",
                    text if narrow else with_ends(value, count),
                    count(value.value * detail["frame_skip"] if value else None),
                    count(median(profiled) if profiled else None),
                )
            )
        rows += [(f"  {failure['impl']}", "not measured") for failure in group.failures]
    return Table("profile", (rate, "frames/s", "under the profiler"), rows)


def _run_name(detail: Mapping[str, Any]) -> str:
    """8x128 on cpu: what ran, and where."""
    config = detail["config"]
    return f"{config['num_envs']}x{config['num_steps']} on {detail['device']}"


def _phases(entry: Entry) -> Table:
    phases: dict[str, float] = entry.detail["phases"]
    rows = [
        ("time", *map(seconds, phases.values())),
        ("share", *(share(value / phases["wall"]) for value in phases.values())),
    ]
    return Table("per update", list(phases), rows)


def operators(entry: Entry, most: int) -> Table:
    """Those that take the most time, on a GPU the device's."""
    detail = entry.detail
    on_gpu, wall = detail["facts"]["on_gpu"], detail.get("profiled_wall_s")
    key = "device_s" if on_gpu else "self_s"
    ranked = sorted(detail["operators"], key=lambda operator: -float(operator[key]))[:most]
    rows = [
        (
            str(operator["name"]),
            str(operator["kind"]),
            count(operator["calls"]),
            seconds(operator["self_s"]),
            share(operator["self_s"] / wall if wall else None),
            seconds(operator["self_s"] / operator["calls"]),
            *([seconds(operator["device_s"])] if on_gpu else []),
        )
        for operator in ranked
    ]
    device = ["device time"] if on_gpu else []
    columns = ("kind", "calls", "own time", "share", "per call", *device)
    return Table(f"top {len(rows)} operators, per update", columns, rows)


def _per_step(entry: Entry) -> Table:
    """Calls, and in brackets bytes."""
    facts, copies = entry.detail["facts"], entry.detail["copies"]
    steps = facts["env_steps"]

    def copied(kind: str) -> str:
        copied = copies.get(kind, {"calls": 0, "bytes": 0})
        return f"{count(copied['calls'] / steps)} ({count(copied['bytes'] / steps)} B)"

    rows = [("operators", count(facts["operators"] / steps))]
    if facts["on_gpu"]:
        rows += [(name, count(facts[name] / steps)) for name in ("launches", "syncs")]
        rows += [(f"copies {kind}", copied(kind)) for kind in ("HtoD", "DtoH", "DtoD")]
    else:
        rows += [
            ("aten::copy_", copied("host")),
            ("  of them aten::_to_copy", copied("to_copy")),
            ("launches, syncs", "none, no GPU"),
        ]
    return Table("per env step", ("number",), rows)


def _limits(entry: Entry) -> Table:
    facts, memory = entry.detail["facts"], entry.detail["memory"]
    reached = facts["env_steps"] / facts["wall_s"] / facts["envpool_rate"]
    within = "" if facts["on_gpu"] else " within an update"
    rows = [
        ("EnvPool alone", f"{count(facts['envpool_rate'])} env steps/s"),
        ("  of it this run makes", of_ceiling(reached)),
        ("matrix product", f"{count(facts['matmul_flops_per_s'] / 1e9)} GFLOP/s"),
        ("copy", f"{count(facts['copy_bytes_per_s'] / 1e9)} GB/s"),
        (f"peak memory of torch's allocator{within}", mebibytes(memory["allocator"])),
        ("peak memory of the process", mebibytes(memory["process"])),
    ]
    return Table("limits and memory", ("measured",), rows)
