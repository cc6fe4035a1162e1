"""`fastppo gate simulate`, also `python -m fastppo.bench.gate`."""

import sys
from collections.abc import Sequence

from fastppo import program
from fastppo.bench.__main__ import choose

COMMANDS = {
    "simulate": ("fastppo.bench.gate.simulate", "error rates of the gate's rule, by simulation"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line of `fastppo gate` and runs.

    Returns:
        0 done, 2 usage, 3 could not measure, 130 interrupted.
    """
    args = sys.argv[1:] if argv is None else argv
    return program.run(lambda: choose("gate", COMMANDS, args), is_process=argv is None)


if __name__ == "__main__":
    sys.exit(main())
