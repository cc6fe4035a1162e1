"""What may be typed behind `fastppo report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo.paths import Folder, Output, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Args:
    """Result files and run directories as a table, markdown, JUnit, pictures or one HTML page."""

    files: Annotated[
        tuple[Path, ...], Role.SOURCE, Positional, arg(metavar="FILE ...", help_behavior_hint="")
    ] = ()
    """Result files of any kind; run directories, or folders of such as `train --seeds` leaves."""
    html: Output = None
    """Write one page that opens offline."""
    md: Output = None
    """Write markdown for a pull-request comment."""
    junit: Output = None
    """Write JUnit XML, one testcase per result."""
    pictures: Folder = None
    """Write every chart as PNG and SVG."""
