"""`fastppo gate record` and `gate history`: results night by night, and where a series changed.

A gate sees what one change costs, down to its tolerance. Many small steps below it add up, and only
the series of nights shows them. A folder has a file per machine, a line per result file.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from fastppo import files
from fastppo.bench.gate import change_points, otava
from fastppo.bench.gate.args import HistoryArgs, RecordArgs
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.errors import MachineError, UserError, why
from fastppo.text import print_err, print_out

CONTROLS = ("copy", "reference", "eager", "envpool")
"""Implementations that stand still while ours changes; the first that a result has divides it."""
OURS = ("fastppo", "head")
Line = dict[str, Any]


def run_record(args: RecordArgs) -> int:
    """Appends result files to a history; one that is in it is left out.

    Raises:
        UserError: a file is no result, or has nothing of ours.
        MachineError: the folder cannot be written.
    """
    if not args.files:
        raise UserError("FILE: missing; name result files of any command with --json")
    for path in args.files:
        record = result.read(path)
        line = _line(record, path)
        target = args.history / f"{record['machine']['fingerprint']}.jsonl"
        if any(old.get("run_id") == line["run_id"] for old in _lines(target)):
            print_out(f"{path}: is in {target} already")
            continue
        try:
            args.history.mkdir(parents=True, exist_ok=True)
            with target.open("a") as file:
                print(json.dumps(line), file=file)
        except OSError as error:
            raise MachineError(f"--history: {target}: {why(error)}") from None
        print_out(f"{path}: {len(line['series'])} series appended to {target}")
    return 0


def _line(record: Mapping[str, Any], path: Path) -> Line:
    by_id: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for entry in record["results"]:
        by_id[entry["id"]][entry["impl"]] = entry
    series = {}
    for name, of_impl in by_id.items():
        ours = next((of_impl[impl] for impl in OURS if impl in of_impl), None)
        value = None if ours is None else _middle(ours)
        if ours is None or value is None:
            continue
        control = next((impl for impl in CONTROLS if impl in of_impl), None)
        series[name] = {
            "value": value,
            "unit": ours["unit"],
            "better": ours["better"],
            "control": control,
            "control_value": None if control is None else _middle(of_impl[control]),
        }
    if not series:
        raise UserError(f"{path}: has no samples of {' or '.join(OURS)}; nothing to record")
    return {
        "run_id": record["run_id"],
        "created": record["created"],
        "revision": record["code"]["sha"],
        "dirty": record["code"]["dirty"],
        "machine": record["machine"],
        "series": series,
    }


def _middle(entry: Mapping[str, Any]) -> float | None:
    samples = [x for launch in entry["launches"] for x in launch["samples"] if x is not None]
    found = median(samples) if samples else 0.0
    return found if found > 0.0 else None


def _lines(path: Path) -> list[Line]:
    """The lines of a file, by time; those that are damaged are named and left out."""
    found, damaged = [], 0
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"{path}: {why(error)}") from None
    for text in content.splitlines():
        try:
            line = files.parse_json(text)
            found.append({**line, "series": dict(line["series"]), "created": str(line["created"])})
        except (files.Unreadable, KeyError, TypeError, ValueError):
            damaged += 1
    if damaged:
        print_err(f"{path}: {damaged} damaged lines left out")
    return sorted(found, key=lambda line: str(line["created"]))


def run_history(args: HistoryArgs) -> int:
    """Looks for changes in every series of a folder, and publishes them.

    Returns:
        0; 1 where the last change of a series is for the worse, with --strict.

    Raises:
        UserError: the folder has no history, or a number is off.
        MachineError: ruptures is missing.
    """
    if not 0.0 < args.alpha < 0.5:
        raise UserError(f"--alpha: {args.alpha} must lie between 0 and 0.5, such as 0.01")
    paths = sorted(args.folder.glob("*.jsonl")) if args.folder.is_dir() else []
    machines = {path.stem: lines for path in paths if (lines := _lines(path))}
    if not machines:
        raise UserError(f"{args.folder}: has no history; fastppo gate record makes one")
    args = prepared(args, "history")
    several = len(machines) > 1
    entries = [
        _entry(f"{machine[:8]}/{name}" if several else name, points, args.alpha)
        for machine, lines in machines.items()
        for name, points in _series(lines).items()
    ]
    if args.otava is not None:
        try:
            args.otava.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"--otava: {args.otava}: {why(error)}") from None
        otava.export(args.otava, entries)
        print_out(f"next: OTAVA_CONFIG={args.otava / otava.CONFIG} otava analyze {otava.TEST}")
    publish(result.new("history", entries, failures=[]), args)
    worse = [entry for entry in entries if is_worse(entry)]
    return 1 if worse and args.strict else 0


def _series(lines: Iterable[Line]) -> dict[str, list[dict[str, Any]]]:
    """Points by name, each with the revision and time that it is of."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        for name, point in line["series"].items():
            about = {key: line.get(key) for key in ("revision", "created")}
            found[name].append({**point, **about})
    return found


def _entry(name: str, points: Sequence[Mapping[str, Any]], alpha: float) -> dict[str, Any]:
    """One series: every value over its control's, and its changes."""
    controls = {point["control"] for point in points}
    # a series that changed its control in between has none
    control = controls.pop() if len(controls) == 1 else None
    values = [
        point["value"] / (point["control_value"] if control and point["control_value"] else 1.0)
        for point in points
    ]
    found = change_points.changes([math.log(value) for value in values], alpha=alpha)
    return {
        "id": f"history/{name}",
        "impl": "fastppo",
        "unit": f"x {control}" if control else points[-1]["unit"],
        "better": points[-1]["better"],
        "clock": "none",
        "launches": [{"order": i, "samples": [value]} for i, value in enumerate(values)],
        "history": {
            "control": control,
            # short: forty digits look like a key, which no report shows
            "revisions": [(point["revision"] or "unknown")[:12] for point in points],
            "times": [point["created"] for point in points],
            "changes": [
                asdict(one) | {"before": math.exp(one.before), "after": math.exp(one.after)}
                for one in found
            ],
        },
    }


def is_worse(entry: Mapping[str, Any]) -> bool:
    """Whether the last change of a series is for the worse."""
    found = entry["history"]["changes"]
    if not found:
        return False
    grew = found[-1]["after"] > found[-1]["before"]
    return bool(grew == (entry["better"] == "lower"))
