"""What a result file becomes in W&B: one run per implementation and environment, one comparison."""

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastppo.bench.report.data import parity_verdict
from fastppo.bench.results.intervals import Interval
from fastppo.bench.results.survival import to_threshold
from fastppo.redact import redact
from fastppo.tracking import wandb_names

Record = Mapping[str, Any]
JOB_TYPES = {
    "train": "train-bench",
    "learn": "learn",
    "env": "env-bench",
    "kernel": "kernel-bench",
    "gpu-check": "kernel-bench",
    "profile": "profile",
    "static": "static",
    "gate": "gate",
    "history": "history",
    "tokens": "tokens-bench",
}
TRAIN_COLUMNS = (
    "id", "impl", "env_steps_per_s", "low", "high", "ratio", "ratio_low", "ratio_high",
    "share_of_envpool", "learning", "mismatch",
)  # fmt: skip
LEARN_COLUMNS = (
    "id", "impl", "seeds", "final_iqm", "low", "high", "threshold", "threshold_source",
    "seeds_reached", "median_steps_to_threshold", "median_steps_low", "median_steps_high",
    "median_seconds_to_threshold", "median_seconds_low", "median_seconds_high", "parity",
    "share_difference", "share_low", "share_high",
)  # fmt: skip
GATE_COLUMNS = (
    "benchmark", "verdict", "change", "low", "high", "tolerance", "pairs", "base", "head", "unit",
    "note",
)  # fmt: skip
OTHER_COLUMNS = ("id", "impl", "unit", "clock", "median", "low", "high", "samples")


@dataclass
class PlannedRun:
    """One W&B run to be written."""

    init: dict[str, Any]
    """Arguments of `wandb.init` but for project, folder and mode."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, tuple[Sequence[str], list[list[Any]]]] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)


def planned(
    record: Record, path: Path, *, against: tuple[Record, Path] | None, traces: Sequence[Path]
) -> list[PlannedRun]:
    """The runs of one record, the comparison last.

    Args:
        path: the record's file, which the comparison carries as an artifact.
        against: record and file that it is compared with, declared as input.
        traces: profiler traces, carried too.
    """
    record = redact(record)
    runs = []
    for entry in record["results"]:
        if record["kind"] == "train":
            runs.append(_train_run(record, entry))
        elif record["kind"] == "learn":
            runs += [_learn_run(record, entry, curve) for curve in entry["learn"]["curves"]]
    compare = _comparison(record)
    if against is not None:  # first: W&B moves the alias `latest` to whatever comes last
        compare.artifacts.append(_result_artifact(*against, use=True))
    compare.artifacts.append(_result_artifact(record, path, use=False))
    found = [path.parent / str(e["profile"]["trace"]) for e in record["results"] if _has_trace(e)]
    for trace in dict.fromkeys([*found, *traces]):
        name = f"trace-{record['machine']['fingerprint']}"
        compare.artifacts.append(_artifact(name, "trace", trace, ["latest"], {}, use=False))
    return [*runs, compare]


def table_of(record: Record) -> tuple[Sequence[str], list[list[Any]]]:
    """The comparison: one row per environment and implementation."""
    if record["kind"] == "learn":
        parity = {(one.get("id"), one["impl"]): one for one in _parity(record)}
        rows = [_learn_row(one, parity.get((one["id"], one["impl"]))) for one in record["results"]]
        return LEARN_COLUMNS, rows
    if record["kind"] == "train":
        return TRAIN_COLUMNS, [_train_row(entry) for entry in record["results"]]
    if record["kind"] == "gate":
        return GATE_COLUMNS, [_gate_row(entry) for entry in record["results"]]
    return OTHER_COLUMNS, [_other_row(entry) for entry in record["results"]]


def _parity(record: Record) -> Sequence[Record]:
    found: Sequence[Record] = (record.get("comparison") or {}).get("parity", ())
    return found


def _train_row(entry: Record) -> list[Any]:
    train = entry["train"]
    rate, ratio = train["env_steps_per_s"], train["ratio"] or {}
    return [
        entry["id"], entry["impl"], rate["value"], rate["low"], rate["high"],
        ratio.get("value"), ratio.get("low"), ratio.get("high"),
        train["shares"].get("envpool"), train["learning"], "; ".join(train["mismatch"]),
    ]  # fmt: skip


def _learn_row(entry: Record, parity: Record | None) -> list[Any]:
    """Learning parity: verdict, and the difference of the shares of seeds that succeed."""
    learn, stored = entry["learn"], parity or {}
    share = (stored.get("success_share") or {}).get("estimate") or {}
    final, curves = learn["final_iqm"], learn["curves"]
    reached = sum(curve["steps_to_threshold"] is not None for curve in curves)
    waits = [None if learn["threshold"] is None else to_threshold(curves, what)
             for what in ("steps", "seconds")]  # fmt: skip
    return [
        entry["id"], entry["impl"], len(curves), final["value"], final["low"], final["high"],
        learn["threshold"], learn.get("threshold_source"), reached,
        *(end for one in waits for end in _ends(one)),
        None if parity is None else parity_verdict(parity),
        share.get("value"), share.get("low"), share.get("high"),
    ]  # fmt: skip


def _ends(found: Interval | None) -> tuple[float | None, ...]:
    """Value, low and high; None for what was not reached, which W&B's tables hold no word for."""
    if found is None:
        return None, None, None
    return tuple(x if math.isfinite(x) else None for x in (found.value, found.low, found.high))


def _gate_row(entry: Record) -> list[Any]:
    """A verdict, and what it rests on; a benchmark that was not timed has no numbers."""
    gate, samples = entry["gate"], [x for one in entry["launches"] for x in one["samples"]]
    change = gate["change"] or {}
    return [
        entry["id"].removeprefix("gate/"), gate["verdict"],
        change.get("value"), change.get("low"), change.get("high"),
        gate["tolerance"], gate["pairs"],
        statistics.median(gate["base"]) if gate["base"] else None,
        statistics.median(samples) if samples else None,
        entry["unit"], gate["note"],
    ]  # fmt: skip


def _other_row(entry: Record) -> list[Any]:
    launches = (launch["samples"] for launch in entry["launches"])
    samples = [value for values in launches for value in values if value is not None]
    middle = statistics.median(samples) if samples else None
    return [
        entry["id"], entry["impl"], entry["unit"], entry["clock"], middle,
        min(samples, default=None), max(samples, default=None), len(samples),
    ]  # fmt: skip


def _values(record: Record, config: Record, env_id: str, seed: int) -> dict[str, Any]:
    """The W&B config of a run: the trainer's settings, and what they ran on."""
    shared = ("machine", "versions", "code", "conditions", "command", "created", "run_id")
    return {
        **config,
        "env_id": env_id,
        "seed": seed,
        **{key: record[key] for key in shared},
        "protocol": {"schema": record["schema"], "kind": record["kind"]},
    }


def _init(record: Record, impl: str, values: dict[str, Any]) -> dict[str, Any]:
    job_type = JOB_TYPES[record["kind"]]
    init = wandb_names.init_arguments(values, impl=impl, job_type=job_type)
    return init | {"id": _id(record, impl, values["env_id"], values["bench_id"], values["seed"])}


def _id(record: Record, *parts: object) -> str:
    # the same file gives the same ids: pushed again, it replaces its runs and adds none
    text = "\n".join(map(str, (record["run_id"], *parts)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _train_run(record: Record, entry: Record) -> PlannedRun:
    train = entry["train"]
    values = _values(record, train["config"], train["env_id"], train["seed"])
    values |= {
        "bench_id": entry["id"],
        "recipe": train["recipe"],
        "work": train["work"],
        "info": train["info"],
        "threads": train["threads"],
    }
    ratio = train["ratio"] or {}
    summary = {
        **{f"env_steps_per_s/{key}": value for key, value in train["env_steps_per_s"].items()},
        "frames_per_s/value": train["frames_per_s"],
        **{f"ratio/{key}": value for key, value in ratio.items()},
        **{f"share/{key}": value for key, value in train["shares"].items()},
        **{f"ceiling/{key}": value for key, value in train["ceilings"].items()},
        **{f"phase/{key}": value for key, value in (train["phases"] or {}).items()},
        **{f"amortised/{key}": value for key, value in train["amortised"].items()},
        **train["wall"],
        **train["memory"],
        "steady_reached": train["steady"]["reached"],
        "learning": train["learning"],
        "mismatch": "; ".join(train["mismatch"]),
    }
    rows = [
        {
            "wall_time": at,
            "env_steps_per_s": rate,
            "frames_per_s": rate * train["frame_skip"],
            "launch": launch["order"],
        }
        for launch in entry["launches"]
        for at, rate in zip(_times(launch), launch["samples"], strict=False)
        if rate is not None
    ]
    return PlannedRun(_init(record, entry["impl"], values), rows, summary)


def _times(launch: Record) -> Sequence[float]:
    """Seconds since the launch at each sample; their number where they were not kept."""
    return launch.get("at") or [float(n) for n in range(len(launch["samples"]))]


def _learn_run(record: Record, entry: Record, curve: Record) -> PlannedRun:
    learn = entry["learn"]
    values = _values(record, learn["config"], learn["env_id"], curve["seed"])
    values |= {
        "bench_id": entry["id"],
        "threshold": learn["threshold"],
        "threshold_source": learn.get("threshold_source"),
        "threshold_window": learn.get("games"),
    }
    rows = [
        {"global_step": steps, "wall_time": seconds, "episode/return": score}
        for steps, seconds, score in zip(
            curve["env_steps"], curve["wall_s"], curve["returns"], strict=False
        )
    ]
    keys = ("steps_to_threshold", "seconds_to_threshold", "total_steps", "total_s")
    summary = {key: curve[key] for key in keys if curve[key] is not None}
    summary["threshold_reached"] = curve["steps_to_threshold"] is not None
    if curve.get("final_return") is not None:
        summary["final_return"] = curve["final_return"]
    return PlannedRun(_init(record, entry["impl"], values), rows, summary)


def _comparison(record: Record) -> PlannedRun:
    kind, sha = record["kind"], record["code"]["sha"]
    hardware = wandb_names.hardware_class({"machine": record["machine"]})
    impls = sorted({entry["impl"] for entry in record["results"]})
    keys = ("schema", "kind", "run_id", "created", "command", "code", "machine", "versions",
            "conditions")  # fmt: skip
    gated = Counter(e["gate"]["verdict"] for e in record["results"] if kind == "gate")
    tables = {"verdicts" if kind == "gate" else "comparison": table_of(record)}
    if record["failures"]:
        failed = [[fail["id"], fail["impl"], fail["reason"]] for fail in record["failures"]]
        tables["failures"] = (("id", "impl", "reason"), failed)
    return PlannedRun(
        {
            "name": f"{kind}-{record['created'][:19]}",
            "group": f"compare/{record['machine']['fingerprint']}",
            "job_type": "gate" if kind == "gate" else "compare",
            "tags": sorted({kind, hardware, *impls, *((sha[:7],) if sha else ())}),
            "config": {key: record[key] for key in keys} | {"hardware": hardware, "impls": impls},
            "id": _id(record, "comparison"),
        },
        summary={
            "results": len(record["results"]),
            "failures": len(record["failures"]),
            **{f"verdict/{name}": count for name, count in gated.items()},
        },
        tables=tables,
    )


def _result_artifact(record: Record, path: Path, *, use: bool) -> dict[str, Any]:
    sha = record["code"]["sha"]
    aliases = [record["run_id"][:12], *((f"sha-{sha[:7]}",) if sha else ())]
    metadata = {key: record[key] for key in ("kind", "created", "code")}
    name = f"{record['kind']}-{record['machine']['fingerprint']}"
    aliases += [] if use else ["latest"]
    return _artifact(name, "benchmark-result", path, aliases, metadata, use=use)


def _artifact(
    name: str, kind: str, path: Path, aliases: list[str], metadata: dict[str, Any], *, use: bool
) -> dict[str, Any]:
    return {
        "op": "artifact", "name": name, "type": kind, "files": [str(path.absolute())],
        "aliases": aliases, "metadata": metadata, "use": use,
    }  # fmt: skip


def _has_trace(entry: Record) -> bool:
    return isinstance(entry.get("profile", {}).get("trace"), str)
