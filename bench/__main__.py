"""`fastppo bench train | learn | env | kernels | peers`, also `python -m fastppo.bench`."""

import argparse
import importlib
import signal
import sys
from collections.abc import Mapping, Sequence

from fastppo.errors import MachineError, UserError

COMMANDS = {
    "train": (
        "fastppo.bench.train.command",
        "env steps per second, side by side with other libraries",
    ),
    "learn": (
        "fastppo.bench.learn.command",
        "return against env steps and time, over several seeds",
    ),
    "parity": ("fastppo.bench.results.parity_simulate", "how often the verdict of learn is wrong"),
    "drift": ("fastppo.bench.compare.simulate", "how often the verdicts of compare are wrong"),
    "env": (
        "fastppo.bench.env.command",
        "EnvPool alone, over environments, batch sizes and threads",
    ),
    "kernels": (
        "fastppo.bench.kernels.command",
        "every kernel beside eager and compiled torch and a copy",
    ),
    "peers": ("fastppo.bench.peers.install", "install the other libraries, each in its own venv"),
}
UPPER = {
    "compare": ("fastppo.bench.compare.command", "two result files, row by row"),
    "report": (
        "fastppo.bench.report.command",
        "result files as a table, markdown, JUnit, or one HTML page",
    ),
    "track": (
        "fastppo.bench.track.command",
        "stored results to Weights & Biases; upload of offline runs",
    ),
}
"""Commands of `fastppo` itself that are served from here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line of `fastppo bench` and runs.

    Returns:
        0 done, 1 a regression, 2 usage, 3 could not measure, 4 void, 130 interrupted.
    """
    return choose("bench", COMMANDS, sys.argv[1:] if argv is None else argv)


def choose(group: str, commands: Mapping[str, tuple[str, str]], args: Sequence[str]) -> int:
    """Runs the command of a group that the first argument names.

    Args:
        group: bench or gate, as in `fastppo bench`.
        commands: module and help by name.

    Returns:
        As `serve`; 2 where no command of the group was named.
    """
    if not args or args[0] in ("-h", "--help"):
        width = max(map(len, commands))
        print(f"usage: fastppo {group} COMMAND ...\n")
        print("\n".join(f"  {name:{width}}  {about}" for name, (_, about) in commands.items()))
        print(f"\nfastppo {group} COMMAND --help explains a command.")
        return 0 if args else 2
    if args[0] not in commands:
        known = ", ".join(commands)
        print(f"fastppo: error: {group}: {args[0]!r} is unknown; use {known}", file=sys.stderr)
        return 2
    module, about = commands[args[0]]
    return serve(module, f"fastppo {group} {args[0]}", about, args[1:])


def serve(module: str, program: str, about: str, args: Sequence[str]) -> int:
    """Runs one command: a module with `add_arguments(parser)` and `run(args)`.

    Args:
        program: as the help names it.

    Returns:
        What `run` returns, or the exit code of what it raised.
    """
    command = importlib.import_module(module)
    parser = argparse.ArgumentParser(prog=program, description=about)
    command.add_arguments(parser)
    parsed = parser.parse_args(args)
    # as for Ctrl-C: unwinding is what stops the children and keeps what was measured
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code: int = command.run(parsed)
    except (MachineError, UserError) as error:
        print(f"fastppo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fastppo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return code


if __name__ == "__main__":
    sys.exit(main())
