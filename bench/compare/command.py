"""`fastppo compare A.json B.json`: what became faster or slower between two result files.

The two files were measured at different times, so nothing pairs their samples. What both measured
of the machine alone (EnvPool with random actions, a plain copy) is divided out, and what that
leaves of the machine is in every interval (`drift`). What A has and B could not measure is a row,
too, and does not pass.
"""

from fastppo.bench.compare import table
from fastppo.bench.compare.args import Args
from fastppo.bench.compare.comparison import compare
from fastppo.bench.compare.junit import junit
from fastppo.bench.report.data import run_of
from fastppo.bench.results import result
from fastppo.errors import UserError


def run(args: Args) -> int:
    """Compares, prints, and writes what was asked for.

    Returns:
        The first that applies: 4 void, the machine alone changed too much; 1 something became
        slower for certain; 3 something of A was not measured in B; 5 with --strict, something
        settles nothing; 0.

    Raises:
        UserError: a file or number is off, or the files cannot be compared.
        MachineError: an output cannot be written.
    """
    if not (0 <= args.tolerance < 1):
        raise UserError(f"--tolerance: {args.tolerance} must be a number from 0 to below 1")
    a, b = (run_of(result.read(path), path.name) for path in (args.a, args.b))
    found = compare(a, b, args.tolerance, allow_mismatch=args.allow_mismatch)
    table.print_comparison(found)
    if args.json is not None:
        result.write_text(args.json, table.as_json(found, strict=args.strict), "--json")
    if args.html is not None:
        result.write_text(args.html, table.html(found), "--html")
    if args.md is not None:
        result.write_text(args.md, table.markdown(found), "--md")
    if args.junit is not None:
        result.write_text(args.junit, junit(found, strict=args.strict), "--junit")
    return found.exit_code(strict=args.strict)
