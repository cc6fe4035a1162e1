"""`fastppo gate simulate`, also `python -m fastppo.bench.gate`."""

import sys
from collections.abc import Sequence

from fastppo.bench.__main__ import choose

COMMANDS = {
    "simulate": ("fastppo.bench.gate.simulate", "error rates of the gate's rule, by simulation"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line of `fastppo gate` and runs.

    Returns:
        0 done, 2 usage, 3 could not measure, 130 interrupted.
    """
    return choose("gate", COMMANDS, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
