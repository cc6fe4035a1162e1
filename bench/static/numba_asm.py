"""What became of a numba kernel: the opcode mix of its assembly, and the rules a change breaks.

Compiled for TARGET_CPU whatever machine this is, and never run: counts of two machines agree.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from fastppo.errors import MachineError

TARGET_CPU = "x86-64-v3"
"""LLVM's name for AVX2 with FMA: what any x86 server of the last ten years has."""

SHARE_TOLERANCE = 0.01
"""Part by which a share may fall; a scalar loop in place of a packed one moves it much further."""

# Wrappers that numba puts around the kernel to unpack its arguments, and its reference counting.
_WRAPPERS = ("_ZN7cpython", "cfunc.", "NRT_")
_INSTRUCTION = re.compile(r"\s+([a-z]\w*)(?:\s+(.*))?$")
_FLOAT = re.compile(
    r"v?(?:add|sub|mul|div|sqrt|min|max|round|hadd|addsub|cmp\w*|u?comi|fn?m(?:add|sub)\d{3})"
    r"([ps])[sd]$"
)
_STACK_STORE = re.compile(r"%[xyz]mm\d+, -?\d*\(%r[sb]p\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class AsmStats:
    """One kernel, with what was inlined into it or is called from it and was compiled with it."""

    instructions: int
    packed: int
    """Float arithmetic on several lanes; moves and conversions are no arithmetic."""
    scalar: int
    """Float arithmetic on one lane."""
    wide: int
    """Of the packed, those on 256 bits or more."""
    calls: int
    stack_stores: int
    """Of vector registers: mostly spills, and some arguments."""
    opcode_hash: str
    """Of mnemonics and register classes in order, not of addresses or constants."""

    @property
    def packed_share(self) -> float:
        """The part of the float arithmetic that is packed; 0 where there is none."""
        return self.packed / max(1, self.packed + self.scalar)

    @property
    def wide_share(self) -> float:
        """The part of the packed arithmetic that fills 256 bits or more; 0 where there is none."""
        return self.wide / max(1, self.packed)

    def shown(self) -> dict[str, str]:
        """The counts by the names of their columns."""
        return {
            "instr": str(self.instructions),
            "packed": str(self.packed),
            "scalar": str(self.scalar),
            "packed %": f"{self.packed_share:.1%}",
            "256-bit %": f"{self.wide_share:.1%}",
            "calls": str(self.calls),
            "stack stores": str(self.stack_stores),
            "opcodes": self.opcode_hash[:6],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def problems(self, before: Self | None, tolerance: float) -> list[str]:
        """What is worse than `before`, one line each.

        Args:
            tolerance: part by which the number of instructions may grow, unless scalar
                arithmetic became packed.
        """
        if before is None:
            return []
        found = []
        for kind, now, then in (
            ("packed share of the float arithmetic", self.packed_share, before.packed_share),
            ("256-bit share of the packed arithmetic", self.wide_share, before.wide_share),
        ):
            if now < then - SHARE_TOLERANCE:
                found.append(f"{kind} {now:.1%}, {then:.1%} before")
        # A loop that became packed grew: it was unrolled, and kept a scalar one for what is left.
        repacked = self.packed > before.packed and self.scalar < before.scalar
        if not repacked and self.instructions > before.instructions * (1 + tolerance):
            growth = self.instructions / before.instructions - 1
            found.append(
                f"{self.instructions} instructions, {before.instructions} before "
                f"({growth:+.1%}, tolerance {tolerance:.1%})"
            )
        return found


def analyse(assembly: str) -> AsmStats:
    """The counts of one kernel.

    Args:
        assembly: of x86-64 in AT&T syntax, as numba's `inspect_asm` returns it.
    """
    opcodes: list[str] = []
    packed = scalar = wide = calls = stack_stores = 0
    in_kernel = False
    for line in assembly.splitlines():
        if line[:1] not in ("", "\t", " ", "#", ".", '"'):
            in_kernel = not line.startswith(_WRAPPERS)
        found = _INSTRUCTION.match(line) if in_kernel else None
        if found is None:
            continue
        opcode, operands = found[1], found[2] or ""
        registers = max(re.findall(r"%([xyz])mm", operands), default="")
        opcodes.append(f"{opcode} {registers}")
        kind = _FLOAT.match(opcode)
        if kind is not None and kind[1] == "p":
            packed += 1
            wide += registers in ("y", "z")
        elif kind is not None:
            scalar += 1
        calls += opcode.startswith("call")
        stack_stores += _STACK_STORE.search(operands) is not None
    if not opcodes:  # no assertion: python -O would count nothing and pass
        raise MachineError("numba: its assembly holds no instruction; install it anew")
    return AsmStats(
        instructions=len(opcodes),
        packed=packed,
        scalar=scalar,
        wide=wide,
        calls=calls,
        stack_stores=stack_stores,
        opcode_hash=hashlib.sha256("\n".join(opcodes).encode()).hexdigest()[:12],
    )
