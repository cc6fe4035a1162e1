"""Tables of kernels, and of training in a GPU check."""

from collections.abc import Iterable, Sequence
from statistics import median

from fastppo.bench.report.data import Group, ResultFile
from fastppo.bench.report.numbers import (
    MISSING,
    count,
    of_ceiling,
    ratio,
    seconds,
    share,
    with_ends,
)
from fastppo.bench.report.table import Table
from fastppo.bench.results.intervals import heading, median_interval
from fastppo.bench.results.paired import speedup


def gpu_training(run: ResultFile) -> Iterable[Table]:
    """Rates on the device, and where the time goes."""
    rows: list[tuple[str, ...]] = []
    for training in run.record.get("training", ()):
        if "not_measured" in training:
            rows.append((str(training["env_id"]), "not measured"))
            continue
        phases = ", ".join(
            f"{name} {share(part)}" for name, part in training["phase_shares"].items()
        )
        name, rate = str(training["env_id"]), count(training["env_steps_per_s"])
        if "of_envpool" not in training:  # of a revision that measured no rival
            rows.append((name, rate, MISSING, MISSING, MISSING, phases))
            continue
        name += f", {training['num_envs']} environments"
        rivals = share(training["of_envpool"]), ratio(training["times_reference"])
        rows.append((name, rate, *rivals, str(training["engine"]), phases))
    if rows:
        columns = ("env steps/s", "of EnvPool alone", "x reference", "engine", "time by phase")
        yield Table("training on the device", columns, rows)
    rows = []
    for sweep in run.record.get("tilings", ()):
        times = {label: value for label, value in sweep["seconds"].items() if value is not None}
        best = min(times, key=lambda label: times[label])
        ours = times[sweep["shipped"]]
        shape = f"{sweep['operation']} {sweep['shape']}"
        rows.append((shape, seconds(ours), seconds(times[best]), ratio(ours / times[best]), best))
    if rows:
        yield Table("tiling", ("shipped", "best", "x", "which"), rows)


def kernels(groups: Sequence[Group], narrow: bool) -> Table:
    """A row per shape and clock, under the name of the operation."""
    counts = [len(e.samples) for g in groups for e in g.entries if e.impl == "fastppo"]
    label = heading(median_interval([1.0] * n).label for n in counts)
    rivals = [rival if narrow else f"{rival} [{label}]" for rival in ("x eager", "x compile")]
    columns = ["time", *rivals, "of copy"]
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((group.title,))
        for (label, _), ways in cases(group).items():
            if "fastppo" in ways:
                rows.append((f"  {label}", *kernel_cells(ways, narrow)))
    return Table("kernel", columns, rows)


def cases(group: Group) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Samples by implementation, for each shape and clock of an operation."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for entry in group.entries:
        shape = " ".join(f"{k}={v}" for k, v in entry.raw.get("shape", {}).items()) or entry.id
        clock = "" if entry.clock == "wall" else f" {entry.clock}"
        found.setdefault((shape + clock, entry.clock), {})[entry.impl] = entry.samples
    return found


def kernel_cells(ways: dict[str, list[float]], narrow: bool) -> list[str]:
    """Our time, how many times less it is than each rival's, and the share of the copy's speed."""
    cells = [seconds(median(ways["fastppo"]))]
    for rival in ("eager", "compile"):
        if len(ways.get(rival, ())) != len(ways["fastppo"]):
            cells.append(MISSING)
            continue
        found = speedup(ways, "fastppo", rival)
        cells.append(ratio(found.value) if narrow else with_ends(found))
    return [*cells, of_ceiling(copy_share(ways))]


def copy_share(ways: dict[str, list[float]]) -> float | None:
    """The copy's time over ours: the share of the machine's limit that we reach."""
    if not ways.get("fastppo") or len(ways.get("copy", ())) != len(ways["fastppo"]):
        return None
    return speedup(ways, "fastppo", "copy").value
