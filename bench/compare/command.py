"""`fastppo compare A.json B.json`: what became faster or slower between two result files."""

import argparse
from pathlib import Path

from fastppo import files
from fastppo.bench.compare import table
from fastppo.bench.compare.comparison import compare
from fastppo.bench.report import command as report
from fastppo.bench.report.data import read
from fastppo.bench.results import result
from fastppo.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fastppo compare`."""
    parser.add_argument("a", type=Path, metavar="A.json", help="the result file to compare with")
    parser.add_argument("b", type=Path, metavar="B.json", help="the newer result file")
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="T",
        help="slow-downs up to this share are none (default 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-mismatch", action="store_true",
        help="compare also across machines and different work, and spell the differences out",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="exit with 5 where a result is inconclusive"
    )
    parser.add_argument("--md", type=Path, metavar="F", help="write the comparison as markdown")
    parser.add_argument("--junit", type=Path, metavar="F", help="write a test case per result")


def run(args: argparse.Namespace) -> int:
    """Compares, prints, and writes what was asked for.

    Returns:
        As `Comparison.exit_code`.

    Raises:
        UserError: a file or number is off, or the files cannot be compared.
        MachineError: an output cannot be written.
    """
    if not (0 <= args.tolerance < 1):
        raise UserError(f"--tolerance: {args.tolerance} must be a number from 0 to below 1")
    outputs = {"--md": args.md, "--junit": args.junit}
    files.check_outputs(outputs, (args.a, args.b))
    for option, path in outputs.items():
        result.check_writable(path, option)
    a, b = (read([path])[0] for path in (args.a, args.b))
    found = compare(a, b, args.tolerance, allow_mismatch=args.allow_mismatch)
    table.print_comparison(found)
    if args.md is not None:
        report.write(args.md, table.markdown(found))
    if args.junit is not None:
        report.write(args.junit, table.junit(found))
    return found.exit_code(strict=args.strict)
