"""The ways a run can end early that are not bugs; the command line makes each one line."""


class UserError(ValueError):
    """The request cannot be met: names the field, the value and the remedy (exit code 2)."""

    exit_code = 2


class MachineError(RuntimeError):
    """The machine failed, not the request: full disk, no permission, lost device (exit code 3)."""

    exit_code = 3


class Diverged(RuntimeError):
    """Training stopped itself: steps, or what it was to save, were not finite (exit code 3)."""

    exit_code = 3


class Interrupted(BaseException):
    """A signal asked the run to stop; the exit code is 128 + its number, as in a shell.

    Not an `Exception`, as KeyboardInterrupt is not one: libraries catch every `Exception`.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


def why(error: OSError) -> str:
    """What the system says, for the middle of a sentence: no space left on device."""
    return (error.strerror or str(error)).lower()
