"""Which revision of the code runs, by git."""

import subprocess
from pathlib import Path
from typing import Any


def revision() -> dict[str, Any]:
    """sha of the running code, and whether it is dirty (changed since); nulls outside its clone."""
    folder = Path(__file__).resolve().parent
    # an installed package may lie inside somebody else's repository, which does not hold this file
    if not git(folder, "ls-files", "--error-unmatch", "__init__.py"):
        return {"sha": None, "dirty": None}
    sha = git(folder, "rev-parse", "HEAD")
    changes = git(folder, "status", "--porcelain", "-uno")
    return {"sha": sha and sha.decode().strip(), "dirty": bool(changes)}


def git(folder: Path, *arguments: str, timeout_s: float | None = 10.0) -> bytes | None:
    """What git prints, run in a folder; None where it fails, takes too long or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
