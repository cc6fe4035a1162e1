"""What must be known to read a table: the verdict in a sentence, then the reservations."""

import math
from collections.abc import Sequence

from fastppo.bench.report.data import (
    CEILINGS,
    NOT_VERIFIED,
    Entry,
    Run,
    mismatches,
    parity_verdict,
)
from fastppo.bench.report.numbers import ABOVE, count, of_ceiling, ratio, with_ends
from fastppo.bench.results.intervals import COVERS, OLDER, heading

OURS = "fastppo"
SURE = (COVERS, OLDER)
"""Labels of intervals that are taken for certain."""


def sentences(runs: Sequence[Run]) -> list[str]:
    """What came out, the most important first; never empty."""
    parts = [_rates(runs), _learning(runs), _correctness(runs), _kernels(runs), _settings(runs)]
    parts += [
        f"{entry.detail['env_id']} is bound by {entry.detail['bound']}"
        for run in runs
        for entry in run.entries
        if "bound" in entry.detail
    ]
    failed = sum(len(run.failures) for run in runs)
    parts.append(f"{failed} could not be measured" if failed else "")
    return [f"{part}." for part in parts if part] or ["nothing was measured."]


def _rates(runs: Sequence[Run]) -> str:
    found = [e for run in runs for e in run.entries if e.kind == "train" and e.impl == OURS]
    ratios = [(e, e.ratio) for e in found if e.ratio]
    if not ratios:
        return f"fastppo trains at {_places(found)}" if found else ""
    bases = " and ".join(dict.fromkeys(str(e.detail["ratio"]["base"]) for e, _ in ratios))
    if len(ratios) == 1:
        entry, only = ratios[0]
        times = f"{with_ends(only)} times ({only.label})"
        return f"fastppo trains {times} as fast as {bases} on {entry.detail['env_id']}"
    values = sorted(r.value for _, r in ratios)
    sure = sum(r.label in SURE and r.low > 1 for _, r in ratios)
    slower = sum(r.label in SURE and r.high < 1 for _, r in ratios)
    ends = dict.fromkeys((ratio(values[0]), ratio(values[-1])))
    return (
        f"fastppo trains {' to '.join(ends)} times as fast as {bases}: for certain faster in "
        f"{sure} of {len(ratios)} workloads, slower in {slower}"
    )


def _places(entries: Sequence[Entry]) -> str:
    told = [
        f"{count(e.value.value)} env steps/s on {e.detail['env_id']}" for e in entries if e.value
    ]
    return ", ".join(told)


def _learning(runs: Sequence[Run]) -> str:
    learned = [e for run in runs for e in run.entries if e.kind == "learn"]
    if not learned:
        return ""
    there = sum(
        curve["steps_to_threshold"] is not None for e in learned for curve in e.detail["curves"]
    )
    asked = sum(len(e.detail["curves"]) for e in learned if e.detail["threshold"] is not None)
    return f"{there} of {asked} learning runs reached their threshold" if asked else ""


def _correctness(runs: Sequence[Run]) -> str:
    checks = [check for run in runs for check in run.checks]
    passed = sum(bool(check["passed"]) for check in checks)
    return f"{passed} of {len(checks)} kernel checks passed" if checks else ""


def _kernels(runs: Sequence[Run]) -> str:
    ours = (e for run in runs for e in run.entries if e.kind == "kernel" and e.impl == OURS)
    timed = {(entry.id, entry.clock) for entry in ours}
    return f"{len(timed)} kernel cases timed" if timed else ""


def _settings(runs: Sequence[Run]) -> str:
    settings = [e for run in runs for e in run.entries if e.kind == "env" and e.value]
    if not settings:
        return ""
    best = max(settings, key=lambda e: e.value.value if e.value else 0.0)
    rate = count(best.value.value if best.value else None)
    return f"EnvPool alone makes up to {rate} env steps/s ({best.id.rpartition('/')[2]})"


def notes(run: Run) -> list[str]:
    """Definitions, then every reservation: work that differs, learning, threads, failures."""
    lines = [*_definitions(run), *_peculiarities(run), *reservations(run)]
    told = (entry.detail.get("verdict") for entry in run.entries)
    return [*lines, *(str(verdict) for verdict in told if verdict is not None)]


def _definitions(run: Run) -> list[str]:
    kinds = {entry.kind for entry in run.entries}
    ratios = heading(entry.ratio.label for entry in run.entries if entry.ratio)
    middles = heading(entry.value.label for entry in run.entries if entry.value)
    lines = []
    if "train" in kinds:
        lines += [
            "env steps/s: transitions over wall time in the steady state, no reset rows.",
            f"ratio: of rates in the same round of interleaved slices; {ratios}.",
            "of EnvPool: share of EnvPool alone with random actions, same run and threads.",
        ]
    if "kernel" in kinds:
        lines += [
            f"x eager, x compile: how many times less time fastppo takes; {middles}.",
            "of copy: time to copy the bytes that must move, over ours.",
        ]
    if "learn" in kinds:
        lines += [
            f"final return: interquartile mean over seeds; bootstrap, {middles}.",
            "env steps, time: until half of the seeds had reached the threshold (Kaplan-Meier).",
            "there and stayed: share of the seeds that reached the threshold and ended above half "
            "of what the base learned, less the base's share, in percentage points; 95% interval.",
        ]
    return lines


def _peculiarities(run: Run) -> list[str]:
    """What an implementation says of itself: equal work may still be another algorithm."""
    said = {
        f"{entry.impl} {info.get('version', '')}: {info['notes']}"
        for entry in run.entries
        if (info := entry.detail.get("info") or {}).get("notes")
    }
    return sorted(said)


def reservations(run: Run) -> list[str]:
    """Everything that limits what the numbers say, one line each."""
    lines = []
    for entry in run.entries:
        name = f"{entry.impl} on {entry.id}"
        work = mismatches(entry)
        if work:
            lines.append(f"* {name} does other work: {'; '.join(work)}")
        if entry.kind != "train":
            continue
        lines += [
            f"{name}: {of_ceiling(part)} of {CEILINGS.get(which, which)}; {ABOVE}"
            for which, part in entry.detail["shares"].items()
            if part is not None and part > 1.0
        ]
        if not entry.detail["steady"]["reached"]:
            lines.append(f"{name}: no steady state was reached")
        if len(entry.samples) == 1:
            lines.append(f"{name}: one sample, so no interval")
    unverified = [e for e in run.entries if e.detail.get("learning") == NOT_VERIFIED]
    if unverified:
        who = ", ".join(dict.fromkeys(entry.impl for entry in unverified))
        lines.append(
            f"learning not verified, so a rate may be of a trainer that learns less: {who}"
        )
    for told in run.parity:
        verdict = parity_verdict(told)
        if verdict != "passed":
            where = str(told.get("id", "")).removeprefix("learn/")
            why = "; ".join(map(str, told.get("reasons", ())))
            lines.append(f"learning parity of {told['impl']} {where}: {verdict}: {why}")
    lines += [
        f"WRONG: {check['name']}: {check['reason']}" for check in run.checks if not check["passed"]
    ]
    return lines + [
        f"{failure['impl']} on {failure['id']} could not be measured: {failure['reason']}"
        for failure in run.failures
    ]


def inconclusive(entry: Entry) -> str | None:
    """Why a result settles nothing; None where it does."""
    found = entry.ratio
    if found is None:
        return None
    base = entry.detail["ratio"]["base"]
    if found.label not in SURE or math.isnan(found.low) or math.isnan(found.high):
        return f"no interval for the ratio to {base}: too few rounds or launches ({found.label})"
    if found.low <= 1 <= found.high:
        return f"neither faster nor slower than {base} for certain: ratio {with_ends(found)}"
    return None
