"""`python -m fastppo.bench quick`: fastppo beside the reference trainer and EnvPool alone."""

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fastppo.bench import quick
from fastppo.errors import MachineError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs; `fastppo bench` calls it too.

    Returns:
        0 done, 2 usage, 3 could not measure, 130 interrupted.
    """
    parser = argparse.ArgumentParser(prog="fastppo bench")
    commands = parser.add_subparsers(dest="command", required=True)
    options = commands.add_parser("quick", help=__doc__, description=__doc__)
    options.add_argument(
        "--quick", action="store_true", help="fewer, shorter slices of smaller rollouts, for CI"
    )
    options.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="measure each environment for at least this long after the warm-up "
        f"(default {quick.FULL.seconds:.0f}; with --quick {quick.BRIEF.seconds:.0f})",
    )
    options.add_argument("--json", type=Path, metavar="F", help="write the raw samples here")
    options.add_argument(
        "--env-id", action="append", choices=quick.WORKLOADS, help="only this one; may be repeated"
    )
    args = parser.parse_args(argv)
    if args.seconds is not None and not (args.seconds > 0 and math.isfinite(args.seconds)):
        parser.error(f"--seconds: {args.seconds} must be a finite number above 0")
    # as for Ctrl-C: unwinding is what kills the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        quick.run(
            quick.BRIEF if args.quick else quick.FULL,
            env_ids=args.env_id or list(quick.WORKLOADS),
            seconds=args.seconds,
            json_path=args.json,
        )
    except (MachineError, UserError) as error:
        print(f"fastppo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fastppo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
