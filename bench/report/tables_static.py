"""What compilers made of every kernel: one table per compiler, as wide as its counts need."""

from collections.abc import Iterable, Sequence

from fastppo.bench.report.data import Entry, Group
from fastppo.bench.report.table import Table

LEGENDS = {
    "triton": "regs and spill (bytes) per thread, shared bytes per program; instr: of the whole "
    "kernel, FFMA2 counts twice; 128-bit: share of the global loads; loads and stores: bits x "
    "number; warps: that fit on an SM, limited by (r)egisters or (s)hared memory.",
    "numba": "packed, scalar: float arithmetic on several lanes, on one; 256-bit %: of the packed; "
    "stack stores: of vector registers.",
}
FAIL = "FAIL"
"""The verdict on a kernel that became worse."""


def compiled(groups: Sequence[Group]) -> Iterable[Table]:
    """A row per kernel and target; a kernel that is gone shows what it was."""
    for group in groups:
        if not group.entries:
            continue
        columns = list(group.entries[0].detail["counts"])
        rows = []
        for entry in group.entries:
            detail = entry.detail
            counts = (str(detail["counts"].get(column, "-")) for column in columns)
            rows.append((str(detail["kernel"]), str(detail["target"]), *counts, verdict(entry)))
        yield Table(group.title, ("for", *columns, "verdict"), rows, is_wide=True)


def verdict(entry: Entry) -> str:
    """same, new, gone, FAIL, or how far the instructions moved; empty with nothing to compare."""
    detail = entry.detail
    now, before = detail["now"], detail["before"]
    if detail["verdict"] != "moved" or now is None or before is None:
        return str(detail["verdict"])
    return f"moved {now['instructions'] / before['instructions'] - 1:+.1%}"


def problems(entries: Iterable[Entry]) -> list[str]:
    """What became worse, one line each."""
    return [
        f"{FAIL} {entry.detail['kernel']}, {entry.detail['target']}: {problem}"
        for entry in entries
        if entry.kind == "static"
        for problem in entry.detail["problems"]
    ]
