"""`fastppo gate simulate`, also `python -m fastppo.bench.gate`."""

import sys
from collections.abc import Sequence

from fastppo.bench.__main__ import serve
from fastppo.errors import UserError

COMMANDS = {
    "simulate": ("fastppo.bench.gate.simulate", "error rates of the gate's rule, by simulation"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line of `fastppo gate` and runs.

    Returns:
        0 done, 2 usage, 3 could not measure, 130 interrupted.

    Raises:
        UserError: no such command.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print("usage: fastppo gate COMMAND ...\n")
        print("\n".join(f"  {name}  {about}" for name, (_, about) in COMMANDS.items()))
        print("\nfastppo gate COMMAND --help explains a command.")
        return 0 if args else 2
    if args[0] not in COMMANDS:
        raise UserError(f"gate: {args[0]!r} is unknown; use {', '.join(COMMANDS)}")
    module, about = COMMANDS[args[0]]
    return serve(module, f"fastppo gate {args[0]}", about, args[1:])


if __name__ == "__main__":
    sys.exit(main())
