"""Run directories as one record that a report can show: runs of one setting together."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastppo import files
from fastppo.bench.results import result
from fastppo.errors import UserError
from fastppo.returns import ReturnWindow, threshold_of
from fastppo.run.rundir import RunDir
from fastppo.tracking.wandb_names import NOT_CONFIGURATION, config_hash

POINTS = 300
"""Of a curve, at most: more updates are joined to their mean."""
AXES = ("global_step", "wall_time")
SERIES = (
    "episode/return", "eval/mean_return", "env_steps_per_s", "loss/policy_loss", "loss/value_loss",
    "loss/entropy", "loss/approx_kl", "loss/clip_frac", "loss/explained_variance", "learning_rate",
    # of runs on tokens
    "episode/exact_match", "episode/e_rate", "episode/total_variation", "loss/ref_kl",
)  # fmt: skip
SAMPLES = 3
"""Of the first update that has any, and of the last."""
PARTS = ("env", "policy", "copy", "gae", "update", "logging", "other")
"""Of a run's time."""


def record(folders: Sequence[Path]) -> dict[str, Any]:
    """Of kind `run`: a result per setting, a launch per run.

    Args:
        folders: run directories, or folders of such, as `train --seeds` leaves them.

    Raises:
        UserError: a folder holds no run, or none that has logged an update.
    """
    runs = [_read(path) for path in _expanded(folders)]
    first = runs[0]["record"]
    machine = first["machine"]
    return {
        "schema": result.SCHEMA,
        "kind": "run",
        "created": first["created"],
        "command": first["command"],
        "code": first["code"],
        "machine": {"fingerprint": result.fingerprint(machine), **machine},
        "versions": first["versions"],
        "conditions": {"load": [], "env": first["variables"]},
        "results": [_entry(group, _labels(runs)) for group in _by_setting(runs)],
        "failures": [],
    }


def _expanded(folders: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        if (folder / "metrics.jsonl").exists():
            found.append(folder)
            continue
        inside = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
        if not inside:
            raise UserError(
                f"{folder}: holds no run that has logged an update; name a run directory, or a "
                "folder of such"
            )
        found += sorted(inside, key=lambda path: (len(path.name), path.name))  # seed-2, seed-10
    return list(dict.fromkeys(found))


def _read(path: Path) -> dict[str, Any]:
    folder = RunDir.open(path)
    config, raw = folder.read_any_config(), folder.read_record()
    missing = {"machine", "versions", "variables", "command", "created", "code"} - set(raw)
    if missing:
        source, names = path / "config.json", ", ".join(sorted(missing))
        raise UserError(f"{source}: {names} is missing; restore the file")
    rows = folder.read_metrics()
    if not rows:
        raise UserError(f"{path}: has logged no update yet; wait for one")
    settings = config.to_dict()
    return {
        "path": path,
        "config": settings,
        "hash": config_hash(settings),
        "num_updates": config.num_updates,
        "record": raw,
        "rows": rows,
        "samples": _samples(path / "samples.jsonl"),
    }


def _by_setting(runs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        key = (run["config"]["env_id"], run["hash"])
        found.setdefault(key, []).append(run)
    return list(found.values())


def _labels(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What each setting is called: by what differs between those of its task."""
    found = {}
    for env_id in dict.fromkeys(run["config"]["env_id"] for run in runs):
        settings = {run["hash"]: run["config"] for run in runs if run["config"]["env_id"] == env_id}
        values = list(settings.values())
        differing = [
            name
            for name in values[0]
            if name not in NOT_CONFIGURATION and any(one[name] != values[0][name] for one in values)
        ]
        for key, config in settings.items():
            told = [f"{name}={config[name]}" for name in differing]
            found[f"{env_id} {key}"] = ", ".join(told) or "fastppo"
    return found


def _entry(runs: Sequence[dict[str, Any]], labels: dict[str, str]) -> dict[str, Any]:
    env_id = runs[0]["config"]["env_id"]
    known = threshold_of(env_id)
    curves = [_curve(run) for run in runs]
    return {
        "id": f"run/{env_id}",
        "impl": labels[f"{env_id} {runs[0]['hash']}"],
        "unit": "return",
        "clock": "wall",
        "better": "higher",
        "launches": [
            {"order": number, "samples": [curve["final_return"]]}
            for number, curve in enumerate(curves)
        ],
        "run": {
            "env_id": env_id,
            "threshold": known and known.value,
            "num_updates": runs[0]["num_updates"],
            "curves": curves,
        },
    }


def _curve(run: dict[str, Any]) -> dict[str, Any]:
    rows = run["rows"]
    window = ReturnWindow()
    for row in rows:
        window.add(row["episode/count"], row.get("episode/return"))
    total = sum(row["time/total"] for row in rows)
    last = rows[-1]
    evaluated = [row["eval/mean_return"] for row in rows if "eval/mean_return" in row]
    return {
        "run_dir": str(run["path"]),
        "seed": run["config"]["seed"],
        "update": last["update"],
        "env_steps": last["global_step"],
        "wall_s": last["wall_time"],
        "env_steps_per_s": sum(row["env_steps"] for row in rows) / total if total else None,
        "final_return": window.mean,
        "best_eval": max(evaluated, default=None),
        "skipped_steps": last["skipped_steps"],
        "phases": {
            part: sum(row.get(f"time/{part}", 0.0) for row in rows) / total if total else None
            for part in PARTS
        },
        "series": {name: _thinned(rows, name) for name in SERIES},
        "samples": run["samples"],
    }


def _samples(path: Path) -> list[dict[str, Any]]:
    """Responses of a language model, of the first update that kept some and of the last.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        found = [one for line in lines if is_sample(one := files.parse_json(line))]
    except (OSError, files.Unreadable) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore or delete the file") from None
    ends = dict.fromkeys((found[0]["update"], found[-1]["update"])) if found else {}
    return [one for at in ends for one in [s for s in found if s["update"] == at][:SAMPLES]]


def is_sample(one: Any) -> bool:
    """Whether it has the fields of a line of samples.jsonl."""
    kinds = {"update": int, "prompt": str, "response": str, "score": int | float}
    return isinstance(one, dict) and all(isinstance(one.get(n), k) for n, k in kinds.items())


def _thinned(rows: Sequence[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """A metric over both axes, neighbours joined to their mean where there are many."""
    kept = [row for row in rows if row.get(name) is not None]
    size = -(-len(kept) // POINTS) if kept else 1
    parts = [kept[i : i + size] for i in range(0, len(kept), size)]
    columns = {**{axis: axis for axis in AXES}, "value": name}
    return {
        column: [sum(row[key] for row in part) / len(part) for part in parts]
        for column, key in columns.items()
    }
