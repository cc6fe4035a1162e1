"""`python -m fastppo`, the same as the `fastppo` command."""

import sys

from fastppo.cli import main

sys.exit(main())
