"""How every command runs and ends: signals, errors and exit codes in one place.

Imports nothing that takes time, for the handler must be there before what does.
"""

import signal
import sys
from collections.abc import Callable

from fastppo import signals
from fastppo.errors import Diverged, Interrupted, MachineError, UserError


def run(command: Callable[[], int], *, is_process: bool = True) -> int:
    """Runs a command; a user's mistake is one line on stderr. Within another it is a part of that.

    Args:
        is_process: when the command ends, so does the process.

    Returns:
        The exit code (README).
    """
    with signals.handled(to_the_end=is_process):
        return _run(command)


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except (UserError, MachineError, Diverged) as error:
        print(f"fastppo: error: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as interrupted:
        signals.tell_unless_told()
        return interrupted.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: `fastppo doctor --envs | head`
        return 0
