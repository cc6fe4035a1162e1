"""`fastppo bench train | learn | env | kernels | peers`, also `python -m fastppo.bench`."""

import importlib
import sys
from collections.abc import Mapping, Sequence

from fastppo import paths, program, signals, streams
from fastppo.parser import Parser
from fastppo.text import print_err

COMMANDS = {
    "train": (
        "fastppo.bench.train.command",
        "env steps per second, side by side with other libraries",
    ),
    "learn": (
        "fastppo.bench.learn.command",
        "return against env steps and time, over several seeds",
    ),
    "compare": ("fastppo.bench.compare.simulate", "how often compare is wrong, by simulation"),
    "coverage": ("fastppo.bench.results.coverage", "how often intervals cover, by simulation"),
    "parity": ("fastppo.bench.results.parity_simulate", "how often the verdict of learn is wrong"),
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
    args = sys.argv[1:] if argv is None else argv
    return program.run(lambda: choose("bench", COMMANDS, args), is_process=argv is None)


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
        print_err(f"fastppo: error: {group}: {args[0]!r} is unknown; use {known}")
        return 2
    module, about = commands[args[0]]
    return serve(module, f"fastppo {group} {args[0]}", about, args[1:])


def serve(module: str, name: str, about: str, args: Sequence[str]) -> int:
    """Runs one command: a module with `add_arguments(parser)` and `run(args)`.

    Args:
        name: as the help has it.

    Returns:
        What `run` returns.
    """
    command = importlib.import_module(module)
    parser = Parser(prog=name, description=about)
    command.add_arguments(parser)
    parsed = parser.parse_args(args)
    paths.check(parser, parsed)
    writes = (action.dest for action in paths.actions(parser) if action.type in paths.WRITTEN)
    outputs = [getattr(parsed, name, None) for name in writes]
    if any(outputs) or not outputs or module == UPPER["compare"][0]:
        streams.mirror()  # a file holds the result, the exit code is it, or it is what was done
    else:
        streams.needed()
    # unwinding is what stops the children and keeps what was measured
    with signals.unwinding():
        code: int = command.run(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())
