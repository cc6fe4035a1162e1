"""What became of a Triton kernel: counts from the machine code, and the rules that a change breaks.

The counts detect changes and cliffs. They do not predict time: a kernel bound by memory may grow by
half and run as before. Compare them between compilations by one Triton version only.
"""

import hashlib
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self

from fastppo.errors import MachineError

SHARED_PER_SM = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}
"""Bytes of shared memory of one multiprocessor, per compute capability."""

# Alike on the three of them (CUDA C++ Programming Guide, "Technical Specifications").
_REGISTERS_PER_SM = 65536
_MAX_WARPS, _MAX_BLOCKS = 64, 32
_SCHEDULERS = 4
_RESERVED_SHARED = 1024

_INSTRUCTION = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T\d]\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)", re.MULTILINE
)
# Each does the work of two: Blackwell's would otherwise look like a saving.
_PACKED_PAIRS = ("FFMA2", "FADD2", "FMUL2")
_NARROW = {"U8": 8, "S8": 8, "U16": 16, "S16": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class CubinStats:
    """One kernel for one GPU architecture."""

    registers: int
    """Per thread."""
    spill_bytes: int
    """Stack and local memory per thread."""
    shared_bytes: int
    """Per program."""
    instructions: int
    """Of the whole kernel, each once however often it runs; FFMA2 and its like count double."""
    loads: dict[int, int]
    """Number of global loads, synchronous or not, per width in bits."""
    stores: dict[int, int]
    """Number of global stores per width in bits."""
    barriers: int
    shuffles: int
    warps_by_registers: int
    """Warps that fit on one multiprocessor for the registers they take; at most 64."""
    warps_by_shared: int
    """The same for shared memory."""
    opcode_hash: str
    """Of opcodes and modifiers in order. The cubin itself holds paths, and differs by folder."""

    @property
    def warps(self) -> int:
        """Warps that fit on one multiprocessor."""
        return min(self.warps_by_registers, self.warps_by_shared)

    def shown(self) -> dict[str, str]:
        """The counts by the names of their columns."""
        by_registers = self.warps_by_registers <= self.warps_by_shared
        limit = "" if self.warps == _MAX_WARPS else "r" if by_registers else "s"
        return {
            "regs": str(self.registers),
            "spill": str(self.spill_bytes),
            "shared": str(self.shared_bytes),
            "instr": str(self.instructions),
            "128-bit": f"{share_of_128(self.loads):.0%}",
            "loads": widths(self.loads),
            "stores": widths(self.stores),
            "BAR": str(self.barriers),
            "SHFL": str(self.shuffles),
            "warps": f"{self.warps}{limit}",
            "opcodes": self.opcode_hash[:6],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        widths = {k: {int(w): n for w, n in values[k].items()} for k in ("loads", "stores")}
        return cls(**{**values, **widths})

    def to_json(self) -> dict[str, Any]:
        """Plain values; widths become strings, as JSON wants its keys."""
        widths = {k: {str(w): n for w, n in getattr(self, k).items()} for k in ("loads", "stores")}
        return asdict(self) | widths

    def problems(self, before: Self | None, tolerance: float) -> list[str]:
        """What is worse than `before`, one line each; without it, only a spill is.

        Args:
            tolerance: part by which the number of instructions may grow.
        """
        found = []
        allowed = before.spill_bytes if before else 0
        if self.spill_bytes > allowed:
            found.append(f"spills {self.spill_bytes} bytes per thread, {allowed} before")
        if before is None:
            return found
        for kind, now, then in (
            ("loads", self.loads, before.loads),
            ("stores", self.stores, before.stores),
        ):
            if lost_width(now, then):
                found.append(f"narrower {kind}: {widths(now)}, {widths(then)} before")
        if self.warps < before.warps:
            found.append(
                f"{self.warps} warps per SM, {before.warps} before (registers "
                f"{before.registers} to {self.registers}, shared {before.shared_bytes} to "
                f"{self.shared_bytes} bytes)"
            )
        if self.instructions > before.instructions * (1 + tolerance):
            growth = self.instructions / before.instructions - 1
            found.append(
                f"{self.instructions} instructions, {before.instructions} before "
                f"({growth:+.1%}, tolerance {tolerance:.1%})"
            )
        return found


def analyse(
    *,
    arch: int,
    num_warps: int,
    registers: int,
    spill_bytes: int,
    shared_bytes: int,
    disassembly: str,
) -> CubinStats:
    """The counts of one kernel.

    Args:
        arch: compute capability, a key of SHARED_PER_SM.
        num_warps: per program.
        disassembly: as `disassemble` returns it.
    """
    opcodes = _INSTRUCTION.findall(disassembly)
    # what the assembler fills the last cache line with
    while opcodes and opcodes[-1] == "NOP":
        opcodes.pop()
    if not opcodes:  # no assertion: python -O would count nothing and pass
        raise MachineError("nvdisasm: printed no instruction; install it anew")
    names = Counter(opcode.partition(".")[0] for opcode in opcodes)
    return CubinStats(
        registers=registers,
        spill_bytes=spill_bytes,
        shared_bytes=shared_bytes,
        instructions=len(opcodes) + sum(names[name] for name in _PACKED_PAIRS),
        loads=_widths(opcodes, ("LDG", "LDGSTS")),
        stores=_widths(opcodes, ("STG",)),
        barriers=names["BAR"],
        shuffles=names["SHFL"],
        warps_by_registers=warps_by_registers(registers, num_warps),
        warps_by_shared=warps_by_shared(shared_bytes, num_warps, arch),
        opcode_hash=hashlib.sha256("\n".join(opcodes).encode()).hexdigest()[:12],
    )


def disassemble(cubin: bytes, nvdisasm: str) -> str:
    """The machine code as text.

    Args:
        nvdisasm: path of the program; Triton brings one.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        # -ndf: without its dataflow analysis, a quarter of its time, the opcodes are the same
        return subprocess.run(
            [nvdisasm, "-c", "-ndf", file.name], capture_output=True, text=True, check=True
        ).stdout


def warps_by_registers(registers: int, num_warps: int) -> int:
    """Warps that fit on one multiprocessor when each thread takes `registers`."""
    # handed out to whole warps in units of 256, by each of the schedulers from a share of its own
    per_warp = -(-max(registers, 1) // 8) * 256
    per_scheduler = _REGISTERS_PER_SM // _SCHEDULERS // per_warp
    return _whole_blocks(per_scheduler * _SCHEDULERS // num_warps, num_warps)


def warps_by_shared(shared_bytes: int, num_warps: int, arch: int) -> int:
    """Warps that fit on one multiprocessor when each program takes `shared_bytes`."""
    per_block = -(-shared_bytes // 128) * 128 + _RESERVED_SHARED
    return _whole_blocks(SHARED_PER_SM[arch] // per_block, num_warps)


def _whole_blocks(blocks: int, num_warps: int) -> int:
    return num_warps * min(blocks, _MAX_BLOCKS, _MAX_WARPS // num_warps)


def lost_width(now: dict[int, int], before: dict[int, int]) -> bool:
    """Whether wide accesses were split: fewer of at least some width, and more below it.

    One access more or fewer, with all others as wide as before, is none.
    """
    return any(
        _at_least(now, width) < _at_least(before, width)
        and _below(now, width) > _below(before, width)
        for width in before
    )


def _at_least(counts: dict[int, int], width: int) -> int:
    return sum(n for w, n in counts.items() if w >= width)


def _below(counts: dict[int, int], width: int) -> int:
    return sum(n for w, n in counts.items() if w < width)


def share_of_128(counts: dict[int, int]) -> float:
    """The part of the accesses that move at least 128 bits; 0 where there are none."""
    return _at_least(counts, 128) / max(1, sum(counts.values()))


def widths(counts: dict[int, int]) -> str:
    """As `128x16 32x1`: bits and number."""
    return " ".join(f"{w}x{n}" for w, n in sorted(counts.items(), reverse=True)) or "none"


def _widths(opcodes: list[str], names: tuple[str, ...]) -> dict[int, int]:
    found: Counter[int] = Counter()
    for opcode in opcodes:
        name, *modifiers = opcode.split(".")
        if name in names:
            wide = [int(m) for m in modifiers if m in ("64", "128", "256")]
            narrow = [_NARROW[m] for m in modifiers if m in _NARROW]
            found[(wide or narrow or [32])[0]] += 1
    return dict(sorted(found.items(), reverse=True))
