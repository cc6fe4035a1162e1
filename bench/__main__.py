"""`fastppo bench quick | kernels`, also `python -m fastppo.bench`."""

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fastppo.bench import quick
from fastppo.errors import MachineError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs; `fastppo bench` calls it too.

    Returns:
        0 done, 2 usage, 3 could not measure, 130 interrupted.
    """
    parser = argparse.ArgumentParser(prog="fastppo bench")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_quick(commands)
    _add_kernels(commands)
    args = parser.parse_args(argv)
    # as for Ctrl-C: unwinding is what kills the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        args.run(args)
    except (MachineError, UserError) as error:
        print(f"fastppo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fastppo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _add_quick(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "fastppo beside the reference trainer and EnvPool alone"
    options = commands.add_parser("quick", help=summary, description=summary)
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
    options.set_defaults(run=_quick)


def _quick(args: argparse.Namespace) -> None:
    if args.seconds is not None and not (args.seconds > 0 and math.isfinite(args.seconds)):
        raise UserError(f"--seconds: {args.seconds} must be a finite number above 0")
    quick.run(
        quick.BRIEF if args.quick else quick.FULL,
        env_ids=args.env_id or list(quick.WORKLOADS),
        seconds=args.seconds,
        json_path=args.json,
    )


def _add_kernels(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "every kernel at real shapes, beside eager and compiled torch and a plain copy"
    options = commands.add_parser("kernels", help=summary, description=summary)
    options.add_argument("operations", nargs="*", metavar="OP", help="only these: gae, gather_*")
    options.add_argument("--quick", action="store_true", help="the ends of the grid, fewer rounds")
    options.add_argument("--rounds", type=int, metavar="R", help="interleaved slices of each way")
    options.add_argument("--threads", type=int, metavar="T", help="of torch; default: all cores")
    options.add_argument("--device", default="auto", help="cpu, cuda or auto")
    options.add_argument("--json", type=Path, metavar="F", help="write the raw samples here")
    options.add_argument("--pictures", type=Path, metavar="DIR", help="draw time against size here")
    options.set_defaults(run=_kernels)


def _kernels(args: argparse.Namespace) -> None:
    for name in ("rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: {value} must be at least 1")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    from fastppo.bench import kernels

    kernels.run(
        device=args.device,
        quick=args.quick,
        operations=args.operations,
        rounds=args.rounds,
        json_path=args.json,
        pictures=args.pictures,
    )


if __name__ == "__main__":
    sys.exit(main())
