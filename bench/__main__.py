"""`python -m fastppo.bench`, the same as `fastppo bench`."""

import sys

from fastppo import cli, program

if __name__ == "__main__":
    sys.exit(program.run(lambda: cli.dispatch(["bench", *sys.argv[1:]])))
