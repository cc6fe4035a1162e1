"""The tables of `fastppo static`: one per compiler, and what is wrong below them."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fastppo.bench.static.gate import Row
from fastppo.bench.static.numba_asm import AsmStats
from fastppo.bench.static.sass import CubinStats, share_of_128, widths
from fastppo.console import PlainConsole

# More columns than any table needs: a narrower terminal wraps lines, cutting would hide counts.
_WIDTH = 200

_TRITON = ("regs", "spill", "shared", "instr", "128-bit", "loads", "stores", "BAR", "SHFL", "warps")
_NUMBA = ("instr", "packed", "scalar", "packed %", "256-bit %", "calls", "stack stores")
_LEFT = ("loads", "stores")
_NOTES = {
    "triton": "regs and spill (bytes) per thread, shared bytes per program; instr: of the whole "
    "kernel, FFMA2 counts twice;\n128-bit: share of the global loads; loads and stores: bits x "
    "number;\nwarps: that fit on an SM, limited by (r)egisters or (s)hared memory.",
    "numba": "packed, scalar: float arithmetic on several lanes, on one; 256-bit %: of the packed; "
    "stack stores: of vector registers.",
}


def render(rows: Sequence[Row], compiler: str, title: str, console: Console | None = None) -> None:
    """Prints the table of one compiler.

    Args:
        title: versions, and what is compared with what.
        console: where to; standard output by default.
    """
    console = console or PlainConsole()
    console.width = max(_WIDTH, console.width)
    framed = console.is_terminal
    table = Table(
        box=box.SIMPLE_HEAD if framed else None,
        pad_edge=False,
        padding=(0, 0 if framed else 1, 0, 0),
    )
    columns = _TRITON if compiler == "triton" else _NUMBA
    table.add_column("kernel", no_wrap=True)
    table.add_column("for", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True)
    table.add_column("opcodes", no_wrap=True)
    table.add_column("", no_wrap=True)
    previous = ""
    for row in rows:
        # a kernel that is gone shows what it was
        stats = row.now or row.before
        cells = _cells(stats)
        table.add_row(
            "" if row.kernel == previous else row.kernel,
            row.target,
            *cells,
            stats.opcode_hash[:6] if stats else "",
            _verdict(row),
            style="red" if row.problems else None,
        )
        previous = row.kernel
    console.print(title, markup=False)
    console.print(table)
    for line in _NOTES[compiler].split("\n"):
        console.print(line, markup=False)
    for row in rows:
        for problem in row.problems:
            console.print(f"FAIL {row.kernel}, {row.target}: {problem}", markup=False, style="red")
    console.print()


def _verdict(row: Row) -> str:
    if row.verdict != "moved" or row.now is None or row.before is None:
        return row.verdict
    return f"moved {row.now.instructions / row.before.instructions - 1:+.1%}"


def _cells(stats: object) -> list[str]:
    if isinstance(stats, CubinStats):
        by_registers = stats.warps_by_registers <= stats.warps_by_shared
        limit = "" if stats.warps == 64 else "r" if by_registers else "s"
        return [
            str(stats.registers),
            str(stats.spill_bytes),
            str(stats.shared_bytes),
            str(stats.instructions),
            f"{share_of_128(stats.loads):.0%}",
            widths(stats.loads),
            widths(stats.stores),
            str(stats.barriers),
            str(stats.shuffles),
            f"{stats.warps}{limit}",
        ]
    assert isinstance(stats, AsmStats)
    return [
        str(stats.instructions),
        str(stats.packed),
        str(stats.scalar),
        f"{stats.packed_share:.1%}",
        f"{stats.wide_share:.1%}",
        str(stats.calls),
        str(stats.stack_stores),
    ]
