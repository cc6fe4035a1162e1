"""EnvPool alone: a table of its settings, and how `fastppo train` compares with the best."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastppo.bench.report.data import Entry, Group, interval_of
from fastppo.bench.report.numbers import count, ratio, share, threads, with_ends
from fastppo.bench.report.table import Table, label_of
from fastppo.bench.results.intervals import Interval


def environments(groups: Sequence[Group], narrow: bool) -> Table:
    """A row per setting, under the name of the task."""
    rate = "env steps/s" if narrow else f"env steps/s [{label_of(groups)}]"
    rows: list[tuple[str, ...]] = []
    for group in groups:
        rows.append((group.title.removeprefix("env/"),))
        for entry in group.entries:
            value, detail = entry.value, entry.detail
            text = "-" if value is None else count(value.value)
            top = max(e.value.value for e in group.entries if e.value and _same_envs(e, entry))
            rows.append(
                (
                    f"  {setting(detail)}",
                    text if narrow else with_ends(value, count),
                    count(detail.get("frames_per_s")),
                    share(value.value / top if value and top else None),
                    "plan" if detail.get("is_train_plan") else "",
                )
            )
        rows += [(f"  {failure['id']}", "not measured") for failure in group.failures]
    return Table("envs / batch / threads", (rate, "frames/s", "of best", "train"), rows)


def _same_envs(a: Entry, b: Entry) -> bool:
    return bool(a.detail["num_envs"] == b.detail["num_envs"])


def setting(detail: dict[str, Any]) -> str:
    """64 / 16 / 2: environments, batch size, threads."""
    return f"{detail['num_envs']} / {detail['batch_size']} / {detail['num_threads']}"


def advice(entries: Iterable[Entry]) -> Iterable[str]:
    """For each number of environments what `fastppo train` will do with it, and what it could."""
    for entry in entries:
        found = entry.detail.get("advice")
        if not found or entry.value is None:
            continue
        yield "; ".join(
            [
                f"{entry.detail['env_id']}, train --num-envs {entry.detail['num_envs']}: EnvPool "
                f"{threads(entry.detail['num_threads'])}, torch {entry.detail['torch_threads']}, "
                f"{count(entry.value.value)} env steps/s",
                _synchronous(found),
                *_asynchronous(found),
            ]
        )


def _synchronous(found: dict[str, Any]) -> str:
    number, gain = found["best_sync"]["num_threads"], _gain(found["gain"])
    if gain is None:
        return "the plan is the best synchronous setting"
    if gain.low > 1.0:
        return (
            f"not the best: it loses {share(1.0 - 1.0 / gain.value)}; `--env-threads {number}` "
            f"gives {_times(gain)} that"
        )
    setting = f"{threads(number)}: {_times(gain)} that"
    return f"no synchronous setting is better beyond noise ({setting})"


def _asynchronous(found: dict[str, Any]) -> Iterable[str]:
    best, gain = found["best"], _gain(found["async_gain"])
    if gain is None:
        return
    setting = f"batch {best['batch_size']}, {threads(best['num_threads'])}"
    if gain.low > 1.0:
        yield f"async: {setting} gives {_times(gain)} the best of those; train cannot use it"
    else:
        yield f"async is no better beyond noise ({setting}: {_times(gain)} that)"


def _gain(stored: dict[str, Any] | None) -> Interval | None:
    return interval_of(stored, 0) if stored else None


def _times(gain: Interval) -> str:
    return f"{ratio(gain.value)} ({ratio(gain.low)} to {ratio(gain.high)}) times"
