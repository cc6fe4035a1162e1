"""What a report knows: result files as entries, grouped by what was measured on what."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastppo import files
from fastppo.bench.report.numbers import command, count, with_ends
from fastppo.bench.results import result
from fastppo.bench.results.intervals import (
    FEWEST_ROUNDS,
    OLDER,
    Interval,
    median_interval,
    over_launches,
    spread,
)
from fastppo.errors import UserError
from fastppo.redact import redact
from fastppo.text import printable

CEILINGS = {"envpool": "EnvPool alone", "rollout": "rollout only", "update": "update only"}
NOT_VERIFIED = "not verified"
WITHOUT_SHARE = "judged without the share of seeds that got there"
"""Of the verdict in a file by the older rule of learning parity, which let failures pass."""


@dataclass(frozen=True)
class Entry:
    """One implementation's result for one id."""

    kind: str
    raw: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def impl(self) -> str:
        return str(self.raw["impl"])

    @property
    def unit(self) -> str:
        return str(self.raw["unit"])

    @property
    def clock(self) -> str:
        return str(self.raw["clock"])

    @property
    def detail(self) -> dict[str, Any]:
        """The object named after the kind; empty for kernels."""
        return dict(self.raw.get(self.kind) or {})

    @property
    def launches(self) -> list[dict[str, Any]]:
        return sorted(self.raw["launches"], key=lambda launch: int(launch["order"]))

    @cached_property
    def samples(self) -> list[float]:
        """Of all launches, in their order; those that are no number are left out."""
        return [x for launch in self.launches for x in launch["samples"] if x is not None]

    @cached_property
    def value(self) -> Interval | None:
        """Middle and interval: of a learning benchmark as it said, else of the samples."""
        if self.kind == "learn":
            return interval_of(self.detail["final_iqm"], len(self.samples))
        if not self.samples:
            return None
        launches = [[x for x in one["samples"] if x is not None] for one in self.launches]
        if self.kind == "train" and min(self.samples) > 0.0:
            return over_launches(launches)
        return median_interval(self.samples, launches=sum(map(bool, launches)))

    @cached_property
    def ratio(self) -> Interval | None:
        """Over the base, from the pairs of a round; None where there is none."""
        stored = self.detail.get("ratio")
        return interval_of(stored, stored["rounds"]) if stored else None

    @property
    def env_steps(self) -> float | None:
        """Transitions in all measured slices."""
        if not all(len(x.get("seconds", ())) == len(x["samples"]) for x in self.launches):
            return None
        pairs = ((x["samples"], x["seconds"]) for x in self.launches)
        both = (zip(rates, seconds, strict=True) for rates, seconds in pairs)
        return float(sum((rate or 0.0) * took for zipped in both for rate, took in zipped))


@dataclass(frozen=True)
class Group:
    """Entries of one id (or, of kernels, of one operation): what is drawn side by side."""

    kind: str
    title: str
    entries: list[Entry]
    failures: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class ResultFile:
    """One result file."""

    record: dict[str, Any]
    name: str = ""

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    @cached_property
    def entries(self) -> list[Entry]:
        # a GPU check holds kernel timings
        kind = "kernel" if self.kind == "gpu-check" else self.kind
        return [Entry(kind, raw) for raw in self.record["results"]]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """id, impl and reason of everything that could not be measured."""
        return [
            *self.record["failures"],
            *(
                {"id": f"train/{run['env_id']}", "impl": "fastppo", "reason": run["not_measured"]}
                for run in self.record.get("training", ())
                if "not_measured" in run
            ),
        ]

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Of a GPU check: name, passed and reason of every kernel's comparison with float64."""
        return list(self.record.get("correctness", ()))

    @property
    def parity(self) -> list[dict[str, Any]]:
        """Of a learning benchmark: id, impl, verdict and reasons of every pair."""
        return list(self.comparison.get("parity", ()))

    @property
    def comparison(self) -> dict[str, Any]:
        """Of a learning benchmark: parity, probability of improvement, performance profiles."""
        return dict(self.record.get("comparison") or {})

    @cached_property
    def groups(self) -> list[Group]:
        """Entries in the order of the file, those of one id together, with what failed."""
        found: dict[str, Group] = {}
        for entry in self.entries:
            key = group_key(entry)
            found.setdefault(key, Group(entry.kind, key, [])).entries.append(entry)
        for failure in self.record["failures"]:
            key = str(failure["id"])
            group = (
                found.setdefault(key, Group(self.kind, key, [])) if self.kind != "kernel" else None
            )
            if group is not None:
                group.failures.append(failure)
        return list(found.values())

    def facts(self) -> dict[str, str]:
        """Machine, versions, date, command and code, as name and text."""
        machine, versions = self.record["machine"], self.record["versions"]
        code, conditions = self.record["code"], self.record["conditions"]
        gpus = ", ".join(machine["gpus"]) or "no GPU"
        revision = (code["sha"] or "unknown")[:12] + (
            " with local changes" if code["dirty"] else ""
        )
        load = ", ".join(f"{value:.2f}" for value in conditions["load"]) or "unknown"
        return {
            "machine": f"{machine['cpu']}, {machine['cores']} cores, {gpus}, "
            f"{machine['memory_gb']:g} GB, {machine['os']}",
            "fingerprint": machine["fingerprint"],
            "versions": ", ".join(f"{k} {v}" for k, v in versions.items() if v),
            "date": self.record["created"],
            "command": command(self.record["command"]),
            "code": f"fastppo {versions['fastppo']}, revision {revision}",
            **({} if self.kind == "run" else {"load before": f"{load} (1, 5, 15 minutes)"}),
            "variables": " ".join(f"{k}={v}" for k, v in conditions["env"].items()) or "none set",
        }


def interval_of(stored: Mapping[str, Any], count: int) -> Interval | None:
    """An interval of a file.

    Args:
        count: of the values behind it, for a file from before there were labels.
    """
    if stored["value"] is None:
        return None
    low, high = (math.nan if stored[end] is None else stored[end] for end in ("low", "high"))
    older = OLDER if count >= FEWEST_ROUNDS else spread(count)
    return Interval(stored["value"], low, high, stored.get("label", older))


def parity_verdict(pair: Mapping[str, Any]) -> str:
    """Passed, failed or cannot tell, as the file has it, and what the older rule did not see."""
    verdict = str(pair["verdict"])
    return verdict if pair.get("success_share") else f"{verdict}, {WITHOUT_SHARE}"


def group_key(entry: Entry) -> str:
    """Entries with one key share a chart and a table."""
    if entry.kind == "kernel":
        return str(entry.raw.get("operation", entry.id))
    if entry.kind in ("env", "profile"):
        return f"{entry.kind}/{entry.detail.get('env_id', entry.id)}"
    if entry.kind == "gate":
        return entry.kind
    return str(entry.detail["compiler"]) if entry.kind == "static" else entry.id


def read(paths: Sequence[Path]) -> list[ResultFile]:
    """The result files, and the run directories as one, cleaned of what no report can show.

    Raises:
        UserError: one cannot be read, or is named twice.
    """
    twice = [str(path) for i, path in enumerate(paths) if path in paths[:i]]
    if twice:
        raise UserError(f"FILES: {twice[0]} is named twice; name every file once")
    folders = [path for path in paths if path.is_dir()]
    found = [run_of(result.read(path), path.name) for path in paths if path not in folders]
    if folders:
        from fastppo.bench.report import run_dirs

        found.insert(0, run_of(run_dirs.record(folders)))
    return found


def run_of(record: dict[str, Any], name: str = "") -> ResultFile:
    """A record as reports show it, just made or read: no secrets, no character that steers."""
    return ResultFile(printable(redact(files.finite(record))), printable(name))


def implementations(runs: Iterable[ResultFile]) -> list[str]:
    """Names in the order of their first appearance."""
    return list(dict.fromkeys(entry.impl for run in runs for entry in run.entries))


def round_ratios(entry: Entry, base: Entry) -> list[tuple[float | None, float]]:
    """Of every round (slices measured next to each other): seconds since the start, and the ratio.

    Above 1, `entry` is better. The time is that of the entry's slice; None if it was not kept.
    """
    ours, theirs = _slices(entry), _slices(base)
    higher = entry.raw["better"] == "higher"
    return [
        (at, rate / theirs[turn][1] if higher else theirs[turn][1] / rate)
        for turn, (at, rate) in ours.items()
        if turn in theirs
    ]


def ratio_between(entry: Entry, base: Entry) -> Interval | None:
    """As `round_ratios`, over launches; None where no round has both."""
    theirs = _slices(base)
    higher = entry.raw["better"] == "higher"
    launches = []
    for number, launch in enumerate(entry.launches):
        both = [(rate, theirs[turn][1])
                for turn, (_, rate) in _slices_of(number, launch) if turn in theirs]  # fmt: skip
        launches.append([x / y if higher else y / x for x, y in both])
    return over_launches(launches) if any(launches) else None


def _slices(entry: Entry) -> dict[tuple[int, int], tuple[float | None, float]]:
    """Of all launches."""
    numbered = enumerate(entry.launches)
    return {turn: one for i, launch in numbered for turn, one in _slices_of(i, launch)}


def _slices_of(
    number: int, launch: Mapping[str, Any]
) -> Iterable[tuple[tuple[int, int], tuple[float | None, float]]]:
    """Round, and its time and sample; where rounds are not numbered, launch and place for it."""
    numbered, at = launch.get("rounds"), launch.get("at") or []
    for i, sample in enumerate(launch["samples"]):
        turn = (0, numbered[i]) if numbered else (number, i)
        if sample is not None and sample > 0:
            yield turn, (at[i] if i < len(at) else None, sample)


def base_of(group: Group, impl: str) -> Entry | None:
    """The entry of this group that ratios are taken over."""
    return next((entry for entry in group.entries if entry.impl == impl), None)


def mismatches(entry: Entry) -> list[str]:
    """Differences of the work manifest, spelled out."""
    return [str(text) for text in entry.detail.get("mismatch", ())]


def spoken(entries: Iterable[Entry]) -> str:
    """The values and their intervals as a sentence."""
    values = ((entry.impl, entry.value) for entry in entries)
    return "; ".join(
        f"{impl} {with_ends(value, count)}" for impl, value in values if value is not None
    )
