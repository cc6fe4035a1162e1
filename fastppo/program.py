"""How every command runs and ends: signals, errors, output and exit codes in one place.

Imports nothing slow: the signal handler must be installed before the slow imports.
"""

import signal
from collections.abc import Callable

from fastppo import faults, limits, signals, streams, surroundings
from fastppo.errors import Diverged, Interrupted, MachineError, UserError
from fastppo.text import print_err


def run(command: Callable[[], int], *, is_process: bool = True) -> int:
    """Runs a command; a user's mistake is one line on stderr. May be called within another command.

    Args:
        is_process: when the command ends, so does the process.

    Returns:
        The exit code (README).

    Raises:
        SystemExit: where the parsers of arguments end, after --help for one.
    """
    if streams.is_guarded():
        return command()
    with signals.handled(to_the_end=is_process), streams.guarded() as out:
        try:
            code = _run(command, is_process=is_process)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
            raise SystemExit(streams.settle(out, code)) from None
        return streams.settle(out, code)


def _run(command: Callable[[], int], *, is_process: bool) -> int:
    try:
        if is_process:
            surroundings.mend()
            limits.check_import_threads()
        return command()
    except (UserError, MachineError, Diverged) as error:
        print_err(f"fastppo: error: {error}")
        return error.exit_code
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        fault = faults.as_line(error)
        if fault is None:
            raise
        print_err(f"fastppo: error: {fault}")
        return MachineError.exit_code
    except Interrupted as interrupted:
        signals.tell_unless_told()
        return interrupted.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
