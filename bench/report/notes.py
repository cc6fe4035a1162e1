"""What must be known to read a table: the verdict in a sentence, then the reservations."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastppo.bench.report.data import (
    CEILINGS,
    NOT_VERIFIED,
    Entry,
    Group,
    ResultFile,
    mismatches,
    parity_verdict,
)
from fastppo.bench.report.numbers import ABOVE, count, of_ceiling, ratio, share, with_ends
from fastppo.bench.report.ranking import SURE, busy, fastest, too_slow
from fastppo.bench.report.tables_env import advice
from fastppo.bench.report.tables_gate import ORDER as VERDICTS
from fastppo.bench.report.tables_gate import READING as GATE_READING
from fastppo.bench.report.tables_gate import findings as gate_findings
from fastppo.bench.report.tables_gate import own_alarms
from fastppo.bench.report.tables_history import READING as HISTORY_READING
from fastppo.bench.report.tables_history import findings as changes
from fastppo.bench.report.tables_kernels import cases, copy_share
from fastppo.bench.report.tables_learn import until_threshold
from fastppo.bench.report.tables_runs import READING as RUNS_READING
from fastppo.bench.report.tables_runs import said, unfinished
from fastppo.bench.report.tables_static import LEGENDS, problems
from fastppo.bench.report.tables_tokens import READING as TOKENS_READING
from fastppo.bench.report.tables_tokens import answered
from fastppo.bench.results.intervals import heading

OURS = "fastppo"


def sentences(runs: Sequence[ResultFile]) -> list[str]:
    """What came out, the most important first; never empty."""
    cut = any(run.record.get("complete") is False for run in runs)
    parts = ["Incomplete: it was cut off, or is still running" if cut else ""]
    parts += [said(runs), _rates(runs), _learning(runs), _correctness(runs), _kernels(runs)]
    parts += [_settings(runs)]
    parts += [_compiled(runs), _gated(runs), _recorded(runs)]
    parts.append(answered(entry for run in runs for entry in run.entries))
    parts += [
        f"{entry.detail['env_id']} is bound by {entry.detail['bound']}"
        for run in runs
        for entry in run.entries
        if "bound" in entry.detail
    ]
    failed = sum(len(run.failures) for run in runs)
    parts.append(f"{failed} could not be measured" if failed else "")
    return [f"{part}." for part in parts if part] or ["nothing was measured."]


def _rates(runs: Sequence[ResultFile]) -> str:
    found = [e for run in runs for e in run.entries if e.kind == "train" and e.impl == OURS]
    ratios = [(e, e.ratio) for e in found if e.ratio]
    if not ratios:
        return f"fastppo trains at {_places(found)}" if found else ""
    bases = " and ".join(dict.fromkeys(str(e.detail["ratio"]["base"]) for e, _ in ratios))
    if len(ratios) == 1:
        entry, only = ratios[0]
        times = f"{ratio(only.value)} times"
        if not math.isnan(only.low):
            times += f" ({ratio(only.low)} to {ratio(only.high)}, {only.label})"
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
    rates = [
        f"{count(e.value.value)} env steps/s on {e.detail['env_id']}" for e in entries if e.value
    ]
    return ", ".join(rates)


def _learning(runs: Sequence[ResultFile]) -> str:
    learned = [e for run in runs for e in run.entries if e.kind == "learn"]
    if not learned:
        return ""
    there = sum(
        curve["steps_to_threshold"] is not None for e in learned for curve in e.detail["curves"]
    )
    asked = sum(len(e.detail["curves"]) for e in learned if e.detail["threshold"] is not None)
    return f"{there} of {asked} learning runs reached their threshold" if asked else ""


def _correctness(runs: Sequence[ResultFile]) -> str:
    checks = [check for run in runs for check in run.checks]
    passed = sum(bool(check["passed"]) for check in checks)
    return f"{passed} of {len(checks)} kernel checks passed" if checks else ""


def _kernels(runs: Sequence[ResultFile]) -> str:
    ours = (e for run in runs for e in run.entries if e.kind == "kernel" and e.impl == OURS)
    timed = {(entry.id, entry.clock) for entry in ours}
    return f"{len(timed)} kernel cases timed" if timed else ""


def _settings(runs: Sequence[ResultFile]) -> str:
    settings = [e for run in runs for e in run.entries if e.kind == "env" and e.value]
    if not settings:
        return ""
    best = max(settings, key=lambda e: e.value.value if e.value else 0.0)
    rate = count(best.value.value if best.value else None)
    return f"EnvPool alone makes up to {rate} env steps/s ({best.id.rpartition('/')[2]})"


def _compiled(runs: Sequence[ResultFile]) -> str:
    entries = [entry for run in runs for entry in run.entries if entry.kind == "static"]
    verdicts = Counter(str(entry.detail["verdict"]) for entry in entries)
    counts = ", ".join(f"{number} {name}" for name, number in verdicts.most_common() if name)
    return f"{len(entries)} compiled kernels{': ' if counts else ''}{counts}" if entries else ""


def _gated(runs: Sequence[ResultFile]) -> str:
    gated = [run for run in runs if run.kind == "gate"]
    void = [str(run.record["void"]) for run in gated if run.record["void"]]
    if void:
        return f"VOID: {void[0]}"
    entries = [entry for run in gated for entry in run.entries]
    counts = Counter(str(entry.detail["verdict"]) for entry in entries)
    found = [name for name in VERDICTS if counts[name]]
    if len(found) == 1:
        return f"{found[0]}: all {len(entries)} benchmarks"
    listed = ", ".join(f"{counts[name]} {name}" for name in found)
    return f"{found[0]}: of {len(entries)} benchmarks {listed}" if entries else ""


def _recorded(runs: Sequence[ResultFile]) -> str:
    entries = [entry for run in runs for entry in run.entries if entry.kind == "history"]
    changed = sum(bool(entry.detail["changes"]) for entry in entries)
    return f"{changed} of {len(entries)} series changed" if entries else ""


def findings(run: ResultFile) -> list[str]:
    """What the numbers come to: a profile's verdict, EnvPool's best setting, what a gate found."""
    verdicts = (e.detail.get("verdict") for e in run.entries if e.kind == "profile")
    sentences_of = [str(verdict) for verdict in verdicts if verdict is not None]
    void = [f"VOID: {run.record['void']}"] if run.record.get("void") else []
    return [
        *sentences_of,
        *fastest(run.groups),
        *(said for _, said in too_slow(run)),
        *advice(run.entries),
        *void,
        *gate_findings(run.entries),
        *changes(run.entries),
    ]


def notes(run: ResultFile) -> list[str]:
    """Definitions, then every reservation: work that differs, learning, threads, failures."""
    passed = [_parity(pair) for pair in run.parity if parity_verdict(pair) == "passed"]
    return [*_definitions(run), *_peculiarities(run), *passed, *reservations(run)]


def _definitions(run: ResultFile) -> list[str]:
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
            *([ABOVE] if any(map(_beats_copy, run.groups)) else []),
        ]
    for compiler, built in (run.record.get("compilers") or {}).items():
        versions = ", ".join(f"{name} {version}" for name, version in built["versions"].items())
        against = f", compared with {built['against']}" if built["against"] else ""
        lines.append(f"{compiler}: {versions}{against}. {LEGENDS.get(compiler, '')}".rstrip())
    for entry in run.entries:
        lines += _of_profile(entry.detail)
    if "gate" in kinds:
        lines += [GATE_READING, *own_alarms(run.record.get("self_test"))]
    if "history" in kinds:
        lines.append(HISTORY_READING)
    if "tokens" in kinds:
        lines.append(TOKENS_READING)
    if "run" in kinds:
        lines.append(RUNS_READING)
    if "env" in kinds:
        lines += [
            "env steps/s: EnvPool alone with random actions; no reset rows; median of rounds.",
            "of best: of the best with as many environments. A batch below them is asynchronous.",
        ]
    return lines + _of_learning(run, middles) if "learn" in kinds else lines


def _of_profile(detail: Mapping[str, Any]) -> list[str]:
    if "profiler_overhead" not in detail:
        return []
    threads, longer = detail["threads"], share(detail["profiler_overhead"])
    return [
        f"under the profiler: an update takes {longer} longer; only the times of operators have "
        f"it. kernels: {detail['backend']}; threads: EnvPool "
        f"{threads['env']}, torch {threads['torch']}."
    ]


def _beats_copy(group: Group) -> bool:
    """Whether a kernel of ours takes less time than the copy, its ceiling."""
    found = cases(group).values() if group.kind == "kernel" else ()
    return any((copy_share(ways) or 0.0) > 1.0 for ways in found)


def _of_learning(run: ResultFile, middles: str) -> list[str]:
    from fastppo.bench.results import parity  # takes scipy, which no --help needs

    detail = run.entries[0].detail
    part = ""
    if "final_part" in detail:
        part = f" of the games in the last {detail['final_part']:.0%} of the env steps"
    window = f" by the mean of the last {detail['games']} games" if "games" in detail else ""
    waits = (until_threshold(entry, "steps") for entry in run.entries)
    lines = [
        f"final return: interquartile mean over seeds{part}; bootstrap, {middles}.",
        f"median steps, time to threshold: when half of the seeds had reached it{window} "
        f"(Kaplan-Meier), by order statistics, {heading(one.label for one in waits if one)}; time "
        "includes the start of the process, from the first update it does not.",
    ]
    sources = {
        f"threshold of {entry.detail['env_id']}: {count(entry.detail['threshold'])}, by {source}."
        for entry in run.entries
        if (source := entry.detail.get("threshold_source"))
    }
    lines += sorted(sources)
    if run.comparison.get("profile"):
        lines.append(
            "performance profile: share of the runs that end above so much of the way. "
            f"{run.comparison['profile']['scale']}."
        )
    if run.parity:
        lines += [
            "there and stayed: share of the seeds that reached the threshold and ended above half "
            "of what the base learned, less the base's share, in percentage points; 95% interval.",
            f"P(ends above the base): 0.50 is equal; base: {run.comparison.get('base', '-')}.",
            f"verdict: passed if, with 95% confidence in each, that share is at most "
            f"{100 * parity.SHARE_MARGIN:g} points below the base's, the return loses at most "
            f"{parity.RETURN_MARGIN:.0%} of what the base learned, and the threshold takes at most "
            f"{parity.STEPS_MARGIN:g} times the base's env steps. That takes {parity.MIN_SEEDS} "
            "seeds without a failure, or more.",
        ]
    return lines


def _parity(pair: Mapping[str, Any]) -> str:
    where = str(pair.get("id", "")).removeprefix("learn/")
    why = "; ".join(map(str, pair.get("reasons", ())))
    return f"learning parity of {pair['impl']} {where}: {parity_verdict(pair)}: {why}"


def _studied(study: Mapping[str, Any]) -> str:
    """A study of learning that a rate's mark relies on, or would if it had passed."""
    of = f"{study['seeds']} seeds, {study['created'][:10]}, revision {(study['sha'] or '-')[:7]}"
    why = "".join(f"; {reason}" for reason in study["reasons"])
    return f"learning parity of {study['impl']}, {study['task']}: {study['verdict']} ({of}){why}"


def _peculiarities(run: ResultFile) -> list[str]:
    """What an implementation says of itself: equal work may still be another algorithm."""
    said = {
        f"{entry.impl} {info.get('version', '')}: {info['notes']}"
        for entry in run.entries
        if (info := entry.detail.get("info") or {}).get("notes")
    }
    return sorted(said)


def reservations(run: ResultFile) -> list[str]:
    """Everything that limits what the numbers say, one line each."""
    lines = [*busy(run)]
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
    lines += map(_studied, run.record.get("studies") or ())
    lines += [*_of_runs(run), *problems(run.entries), *unfinished(run.entries)]
    lines += [
        f"WRONG: {check['name']}: {check['reason']}" for check in run.checks if not check["passed"]
    ]
    return lines + [
        f"{failure['impl']} on {failure['id']} could not be measured: {failure['reason']}"
        for failure in run.failures
    ]


def _of_runs(run: ResultFile) -> list[str]:
    """Of a learning benchmark: verdicts that are not passed, odd runs, and what disturbed them."""
    lines = [_parity(pair) for pair in run.parity if parity_verdict(pair) != "passed"]
    lines += [
        f"{pair['impl']} is too good to be the same work? compare the curves and the work manifests"
        for pair in run.parity
        if pair.get("too_fast")
    ]
    learned = [entry.detail for entry in run.entries if entry.kind == "learn"]
    jobs = max((detail.get("jobs", 1) for detail in learned), default=1)
    if jobs > 1:
        lines.append(f"{jobs} processes ran side by side: seconds are not those of one alone")
    cut = sum(not curve.get("finished", True) for detail in learned for curve in detail["curves"])
    if cut:
        lines.append(f"{cut} run{'s' * (cut > 1)} cut short: in steps and time to threshold only")
    return lines


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
