"""`fastppo gate self-test`: the same revision on both sides, again and again, and what came of it.

Every gate is a line of a file in the user's cache; the table is over all lines of this machine. The
gates of fastppo print its last line: what a machine cannot see, it should not be trusted with.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fastppo import files, machine
from fastppo.bench.gate import caches, rule
from fastppo.bench.gate.args import GateOptions
from fastppo.bench.results import result
from fastppo.bench.results.simulation import markdown_table
from fastppo.errors import MachineError, why

STORE = "self-test.jsonl"
VERDICTS = (rule.PASS, rule.IMPROVED, rule.INCONCLUSIVE, rule.FLAKY, rule.REGRESSION)
TOTAL = "all"


def store() -> Path:
    """The file of this user."""
    return caches.root().parent / STORE


def remember(record: Mapping[str, Any], args: GateOptions, seconds: float) -> None:
    """Appends a gate of equal sides.

    Raises:
        MachineError: the cache cannot be written.
    """
    line = {
        "machine": _here(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "subject": args.command or "fastppo",
        "definitions": _definitions(),
        "revision": record["head"]["sha"],
        "rounds": args.rounds,
        "seconds": round(seconds, 1),
        "void": record["void"],
        "steal": max((part for run in record["steal"] for part in run), default=0.0),
        "results": {
            entry["id"].removeprefix("gate/"): {
                "verdict": entry["gate"]["verdict"],
                "tolerance": entry["gate"]["tolerance"],
                "differences": entry["gate"]["differences"],
            }
            for entry in record["results"]
        },
    }
    try:
        store().parent.mkdir(parents=True, exist_ok=True)
        with store().open("a") as file:
            print(json.dumps(line), file=file)
    except OSError as error:
        raise MachineError(f"{store()}: {why(error)}; set XDG_CACHE_HOME to a folder that can be "
                           "written") from None  # fmt: skip


def gates(args: GateOptions) -> list[dict[str, Any]]:
    """Every gate of equal sides that this machine ran of this subject; damaged lines are left out.

    Gates that were void say nothing, here as elsewhere.
    """
    try:
        lines = store().read_bytes().splitlines()
    except OSError:
        return []
    asked = {
        "machine": _here(),
        "subject": args.command or "fastppo",
        "void": None,
        "definitions": _definitions(),
    }
    found = []
    for line in lines:
        try:
            gate = files.parse_json(line)
        except files.Unreadable:
            continue
        if isinstance(gate, dict) and asked.items() <= gate.items():
            found.append(gate)
    return found


def summary(args: GateOptions) -> dict[str, Any] | None:
    """What a gate's record says of its machine; None where it was never tested."""
    if not (found := gates(args)):
        return None
    rows = list(_rows(found))
    total = rows[-1]
    return {
        "gates": len(found),
        "benchmarks": total["benchmarks"],
        "regressions": total["counts"][rule.REGRESSION],
        "detectable": {row["kind"]: row["detectable"] for row in rows if row["detectable"]},
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """A row per kind of benchmark, over all gates."""
    head = ("kind", "judged", *VERDICTS, "smallest slow-down to be seen")
    rows = []
    for row in _rows(found):
        seen = "-" if row["detectable"] is None else f"{row['detectable']:.0%}"
        counts = [str(row["counts"][verdict]) for verdict in VERDICTS]
        rows.append((row["kind"], str(row["benchmarks"]), *counts, seen))
    return markdown_table(head, rows)


def _rows(found: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """By kind, and of all: verdicts, and what 20 pairs would show (median over benchmarks)."""
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    differences: dict[str, list[float]] = defaultdict(list)
    tolerances: dict[str, float] = {}
    for gate in found:
        for name, said in gate["results"].items():
            verdicts[name.partition("/")[0]][said["verdict"]] += 1
            differences[name] += said["differences"]
            tolerances[name] = said["tolerance"]
    visible: dict[str, list[float]] = defaultdict(list)
    for name, seen in differences.items():
        if len(seen) >= rule.SECOND_LOOK:
            least = rule.detectable(seen[-rule.ROUNDS :], tolerances[name], rule.FALSE_ALARM / 2)
            visible[name.partition("/")[0]].append(least)
    for kind, counts in verdicts.items():
        yield _row(kind, counts, visible[kind])
    every = [least for some in visible.values() for least in some]
    yield _row(TOTAL, sum(verdicts.values(), Counter()), every)


def _row(kind: str, counts: Counter[str], visible: Sequence[float]) -> dict[str, Any]:
    detectable = median(visible) if visible else None
    return {
        "kind": kind,
        "benchmarks": counts.total(),
        "counts": counts,
        "detectable": detectable,
    }


def _definitions() -> str:
    """Digest of what is measured, how, and by what rule: gates of another say nothing of this."""
    digest = hashlib.sha256()
    for name in ("benchmarks", "own", "pairs", "project", "rule", "start"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def _here() -> str:
    """This kind of machine, as result files name it."""
    return result.fingerprint(machine.machine())
