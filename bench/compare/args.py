"""What may be typed behind `fastppo compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.paths import Output, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Args:
    """Two result files, row by row."""

    a: Annotated[Path, Role.SOURCE, Positional, arg(metavar="A.json")]
    """The result file to compare with."""
    b: Annotated[Path, Role.SOURCE, Positional, arg(metavar="B.json")]
    """The newer result file."""
    tolerance: Annotated[float, arg(metavar="T")] = 0.05
    """Slow-downs up to this share are none."""
    allow_mismatch: bool = False
    """Compare across machines and different work too, differences spelled out; ratios are raw."""
    strict: bool = False
    """Exit with 5 where a result settles nothing."""
    json: Output = None
    """Write the comparison as JSON."""
    html: Output = None
    """Write it as one page that opens offline."""
    md: Output = None
    """Write it as markdown."""
    junit: Output = None
    """Write it as JUnit XML."""
