"""`fastppo bench peers install | list`: the other libraries, each in a venv of its own.

A venv is built next to its place and moved there whole, stamp and all, so that an install that was
killed is never taken for one. A venv's python does not mind the move (its scripts would).
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fastppo import files
from fastppo.bench.peers import registry
from fastppo.bench.peers.registry import Peer
from fastppo.errors import MachineError
from fastppo.text import print_err, print_out

LAST_LINE = 200
"""Characters of pip's last line that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallArgs:
    """Make a venv for each of the other libraries; those that are there stay."""

    peers: Annotated[
        tuple[str, ...], Positional, arg(metavar="[NAME ...]", help_behavior_hint="(default: all)")
    ] = ()
    """As `fastppo bench peers list` has them."""
    again: bool = False
    """Replace what is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListArgs:
    """Which of the other libraries are installed, and how large they are."""


def run_list(_args: ListArgs) -> int:
    """Prints the table; returns 0."""
    for line in table():
        print_out(line)
    return 0


def run_install(args: InstallArgs) -> int:
    """Installs.

    Returns:
        0, or 3 if a peer could not be installed; the others are.

    Raises:
        UserError: unknown peer.
    """
    peers = [registry.find(name) for name in dict.fromkeys(args.peers)]
    failed = False
    for peer in peers or registry.PEERS.values():
        if peer.missing is not None:
            print_out(f"{peer.name}: cannot be installed: {peer.missing}")
            failed = failed or bool(peers)  # nobody asked for it by name
            continue
        if registry.is_current(peer.name) and not args.again:
            print_out(f"{peer.name}: already installed")
            continue
        print_out(f"{peer.name}: installing {peer.alone or peer.requirements[0]} ...")
        try:
            install(peer)
        except (MachineError, OSError) as error:
            print_err(f"fastppo: error: {peer.name}: {error}")
            failed = True
        else:
            print_out(f"{peer.name}: installed in {registry.root() / peer.name}")
    return 3 if failed else 0


def table() -> list[str]:
    """One line per peer: name, version or state, size on disk, what it is."""
    rows = []
    for peer in registry.PEERS.values():
        found = registry.stamp(peer.name)
        folder = registry.root() / peer.name
        nothing = "cannot be installed" if peer.missing else "not installed"
        version = found["version"] if found is not None else nothing
        if found is not None and not registry.is_current(peer.name):
            version += " (outdated)"
        size = f"{disk_bytes(folder) / 1e9:.1f} GB" if folder.exists() else "-"
        rows.append((peer.name, version, size, peer.note))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]


def install(peer: Peer) -> None:
    """Makes a peer's venv, or leaves what was there.

    Raises:
        MachineError: pip or venv failed (its output is kept in a log file next to the venv), or
            another process is installing the same peer.
    """
    root = registry.root()
    root.mkdir(parents=True, exist_ok=True)
    with _only_one(root, peer):
        building, target = root / f".{peer.name}.building", root / peer.name
        shutil.rmtree(building, ignore_errors=True)  # of an install that was killed
        log = root / f"{peer.name}.log"
        try:
            log.write_text("")
            call([sys.executable, "-m", "venv", str(building)], log)
            python = str(building / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
            call([*pip, *peer.requirements], log)
            if peer.alone is not None:
                call([*pip, "--no-deps", "--ignore-requires-python", peer.alone], log)
            registry.link_package(building)
            versions = _versions(python, log)
            stamp = {
                "requirements": peer.pins,
                "version": versions[peer.distribution],
                "packages": versions,
            }
            (building / registry.STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
            shutil.rmtree(target, ignore_errors=True)
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        log.unlink()


def call(command: Sequence[str], log: Path) -> None:
    """Runs a command with its output appended to a file.

    Raises:
        MachineError: it failed; says its last line and where the rest is.
    """
    with log.open("a") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").split("\n")]
        said = [line for line in lines if line.startswith("ERROR")] or list(filter(None, lines))
        last = said[-1][:LAST_LINE] if said else f"exit status {done.returncode}"
        raise MachineError(f"could not install: {last} (all of it: {log})")


def disk_bytes(folder: Path) -> int:
    """What a folder takes up, links not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_blocks * 512 for name in names)
    return total


def _versions(python: str, log: Path) -> dict[str, str]:
    """Version by distribution of everything in a venv."""
    code = (
        "import importlib.metadata as m, json;"
        "found = {d.name.lower().replace('_', '-'): d.version for d in m.distributions()};"
        "print(json.dumps(found))"
    )
    found = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True)
    if found.returncode:
        log.write_text(found.stderr)
        raise MachineError(f"could not install: its python does not run (all of it: {log})")
    versions: dict[str, str] = json.loads(found.stdout)
    return dict(sorted(versions.items()))


@contextmanager
def _only_one(root: Path, peer: Peer) -> Iterator[None]:
    with files.open_lock(root / f".{peer.name}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError("another process is installing it; try again later") from None
        yield
