"""What training runs came to: their return, their rate, and where the time went."""

from collections.abc import Iterable, Sequence
from statistics import median

from fastppo.bench.report.data import Entry, Group, ResultFile
from fastppo.bench.report.numbers import count, seconds, share
from fastppo.bench.report.table import Table, title

READING = (
    "of a language model a token is an env step, a response a game, and its score the return; "
    "final return: mean of the last 100 games of a run; of several seeds their median, and the "
    "least and the most; best evaluation: of those that a run made "
    "with --eval-interval; env steps/s: over the whole run, evaluations and logging left out."
)


def runs(groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
    """A row per setting, then the shares of the time."""
    rows: list[tuple[str, ...]] = []
    phases: list[tuple[str, ...]] = []
    names = list(groups[0].entries[0].detail["curves"][0]["phases"])
    for group in groups:
        rows.append((title(group),))
        phases.append((title(group),))
        for entry in group.entries:
            curves = entry.detail["curves"]
            rows.append((f"  {entry.impl}", str(len(curves)), *_facts(entry, narrow)))
            spent = [median(curve["phases"][name] or 0.0 for curve in curves) for name in names]
            phases.append((f"  {entry.impl}", *map(share, spent)))
    columns = ("seeds", "env steps", "final return", "best evaluation", "env steps/s", "time")
    yield Table("training", columns, rows)
    yield Table("share of the time", names, phases)
    if samples := list(_samples(groups)):
        yield Table("samples", ("prompt", "response", "score"), samples)


def _samples(groups: Sequence[Group]) -> Iterable[tuple[str, ...]]:
    """Responses of language models, first and last of the first run of each setting."""
    for group in groups:
        for entry in group.entries:
            for sample in entry.detail["curves"][0].get("samples", ()):
                name = f"  {title(group)}, update {sample['update']}"
                prompt, response = repr(sample["prompt"]), repr(sample["response"])
                yield name, prompt, response, f"{sample['score']:.2f}"


def _facts(entry: Entry, narrow: bool) -> tuple[str, ...]:
    curves = entry.detail["curves"]
    best = [curve["best_eval"] for curve in curves if curve["best_eval"] is not None]
    rates = [curve["env_steps_per_s"] for curve in curves if curve["env_steps_per_s"]]
    final = count(entry.value.value if entry.value else None)
    if len(entry.samples) > 1 and not narrow:
        final += f" ({count(min(entry.samples))} to {count(max(entry.samples))})"
    return (
        count(median(curve["env_steps"] for curve in curves)),
        final,
        count(max(best)) if best else "-",
        count(median(rates)) if rates else "-",
        seconds(median(curve["wall_s"] for curve in curves)),
    )


def unfinished(entries: Iterable[Entry]) -> list[str]:
    """A sentence for each run that has not come to its end, or skipped steps."""
    found = []
    for entry in entries:
        for curve in entry.detail["curves"] if entry.kind == "run" else ():
            if curve["update"] < entry.detail["num_updates"]:
                done = curve["update"] / entry.detail["num_updates"]
                found.append(f"{curve['run_dir']} is at {done:.0%} of its updates")
            if curve["skipped_steps"]:
                found.append(
                    f"{curve['run_dir']} skipped {curve['skipped_steps']} optimizer steps whose "
                    "loss or gradient was not finite"
                )
    return found


def said(runs: Sequence[ResultFile]) -> str:
    """The returns in a sentence; empty where there are no runs."""
    entries = [entry for run in runs for entry in run.entries if entry.kind == "run"]
    parts = []
    for entry in entries:
        curves = entry.detail["curves"]
        name = "" if entry.impl == "fastppo" else f" with {entry.impl}"
        of = f"{len(curves)} seeds" if len(curves) > 1 else "1 run"
        steps = count(median(curve["env_steps"] for curve in curves))
        got = "no game ended" if entry.value is None else f"return {count(entry.value.value)}"
        unit = "tokens" if entry.detail["env_id"].startswith("tokens/") else "env steps"
        parts.append(f"{entry.detail['env_id']}{name}: {got} after {steps} {unit} ({of})")
    return "; ".join(parts)
