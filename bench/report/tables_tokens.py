"""What libraries compute from tokens, question by question, and what their losses cost."""

from collections.abc import Iterable, Sequence
from statistics import median

from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.numbers import mebibytes, ratio, seconds, with_ends
from fastppo.bench.report.table import Table
from fastppo.bench.results.intervals import median_interval

READING = (
    "computed from each library's own functions on the same tensors (docs/tokens.md explains each "
    "question). times eager: time of plain torch over that of the "
    "library, loss and gradient, in turn in one process, median and 95% interval; peak: the most "
    "that torch held beyond the inputs."
)
NO_FUNCTION = "it has no function for that"
TITLES = {
    "tokens/loss": "loss of logits, 128 x 32,768, float32",
    "tokens/linear": "loss of hidden states, 128 x 128 to 32,768",
}


def tokens(groups: Sequence[Group], narrow: bool) -> Iterable[Table]:
    """The answers, and who gives each; then times and memory of each library."""
    for group in groups:
        entries = [entry for entry in group.entries if entry.samples]
        if group.title == "tokens/answers":
            yield _answers(entries)
        elif entries:
            rows = [_row(entry, narrow) for entry in entries]
            name = TITLES.get(group.title, group.title)
            yield Table(name, ("time", "times eager", "peak", "of eager's"), rows)


def answered(entries: Iterable[Entry]) -> str:
    """How many libraries answered, and agree, in a sentence; empty where none was asked."""
    asked = [one.detail["answers"] for one in entries if one.id == "tokens/answers"]
    if not asked:
        return ""
    questions = dict.fromkeys(name for answers in asked for name in answers)
    alike = sum(
        len({answers[name]["text"] for answers in asked if name in answers}) == 1
        for name in questions
    )
    if len(asked) == 1:
        return f"1 library answered {len(questions)} questions on tokens"
    return (
        f"{len(asked)} libraries answered {len(questions)} questions on tokens; on {alike} of them "
        "those that have a function for it agree"
    )


def _answers(entries: Sequence[Entry]) -> Table:
    """Who gives which answer: a matrix of sentences would fit no window."""
    rows: list[tuple[str, ...]] = []
    for question in dict.fromkeys(name for one in entries for name in one.detail["answers"]):
        given: dict[str, list[str]] = {}
        for one in entries:
            found = one.detail["answers"].get(question)
            given.setdefault(NO_FUNCTION if found is None else found["text"], []).append(one.impl)
        last = given.pop(NO_FUNCTION, None)
        rows.append((question,))
        rows += [(f"  {answer}", ", ".join(names)) for answer, names in given.items()]
        if last:
            rows.append((f"  {NO_FUNCTION}", ", ".join(last)))
    versions = ", ".join(f"{one.impl} {one.detail['version']}" for one in entries)
    rows.append(("versions",))
    rows.append((f"  {versions}", ""))
    return Table("what is computed", ("by",), rows)


def _row(entry: Entry, narrow: bool) -> tuple[str, ...]:
    detail = entry.detail
    pairs = zip(detail["eager_s"], entry.samples, strict=True)
    gain = median_interval([eager / ours for eager, ours in pairs])
    return (
        entry.impl,
        seconds(median(entry.samples)),
        ratio(gain.value) if narrow else with_ends(gain),
        mebibytes(detail["peak_bytes"]),
        ratio(detail["peak_bytes"] / detail["eager_peak_bytes"]),
    )
