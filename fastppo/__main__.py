"""`python -m fastppo` and the `fastppo` command; signals are handled before the slow imports."""

import sys

from fastppo import program


def main() -> int:
    """Runs the command line and returns the exit code."""
    return program.run(_dispatch)


def _dispatch() -> int:
    from fastppo.cli import dispatch

    return dispatch(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
