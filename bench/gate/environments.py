"""The packages of each side: one environment where both need the same, else one each."""

import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastppo.bench.gate.args import GateOptions
from fastppo.bench.gate.revisions import GateSide
from fastppo.errors import MachineError
from fastppo.text import print_err

LOCK, PROJECT = "constraints.txt", "pyproject.toml"
INSTALL_S = 1800.0


def made(pair: tuple[GateSide, GateSide], args: GateOptions) -> tuple[GateSide, GateSide]:
    """Both sides with an interpreter that has their packages; those of a command are its own.

    Raises:
        MachineError: they cannot be installed.
    """
    base, head = pair
    if args.command is not None or requirements(base.tree) == requirements(head.tree):
        return pair
    print_err("base and head need other packages: an environment is made for each (minutes)")
    return _install(base), _install(head)


def requirements(tree: Path) -> tuple[str, Any]:
    """What a tree is installed with: its lock file, and what its project asks for."""
    texts = [p.read_text() if (p := tree / name).exists() else "" for name in (LOCK, PROJECT)]
    pinned = [line for line in texts[0].splitlines() if line.strip() and line[0] != "#"]
    try:
        project = tomllib.loads(texts[1]).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise MachineError(f"{tree.name}: {PROJECT} cannot be read ({error})") from None
    asked = {key: project.get(key) for key in ("dependencies", "optional-dependencies")}
    return "\n".join(pinned), asked


def _install(side: GateSide) -> GateSide:
    command = ["make", "-C", str(side.tree), "install", f"PY={sys.executable}"]
    env = {name: value for name, value in os.environ.items() if name not in ("VENV", "MAKEFLAGS")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{side.name}: its packages cannot be installed ({error})") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "it left no message").splitlines()[-1]
        raise MachineError(f"{side.name}: its packages cannot be installed ({last[:300]})")
    return replace(side, python=str(side.tree / ".venv" / "bin" / "python"))
