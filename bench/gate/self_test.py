"""`fastppo gate self-test`: runs gates of HEAD against itself, and prints what they said."""

import time

from fastppo.bench.gate import alarms
from fastppo.bench.gate.args import SelfTestArgs
from fastppo.bench.gate.command import alone, check, compare, subject_of, unpacked
from fastppo.bench.results import result
from fastppo.errors import UserError
from fastppo.text import print_err, print_out


def run(args: SelfTestArgs) -> int:
    """Runs the gates, keeps each, and prints the table of all.

    Raises:
        UserError: a number is off.
        MachineError: another gate runs here, the code does not run, or nothing can be kept.
    """
    check(args)
    if args.gates < 1:
        raise UserError(f"--gates: {args.gates} must be 1 or above")
    with alone(), unpacked(args, "HEAD", "HEAD") as pair:
        for number in range(args.gates):
            begin = time.monotonic()
            record = compare(pair, subject_of(pair, args, again=True), args)
            seconds = time.monotonic() - begin
            alarms.remember(record, args, seconds)
            said = "VOID" if record["void"] else f"{len(record['results'])} benchmarks judged"
            print_err(f"gate {number + 1} of {args.gates}: {said} in {seconds:.0f} s")
    found = alarms.gates(args)
    table = alarms.table(found)
    print_out(f"{len(found)} gates of equal sides on this machine, in {alarms.store()}")
    print(table, end="")
    if args.md is not None:
        result.write_text(args.md, table, "--md")
    return 0
