"""`fastppo bench tokens`: the same tensors into every library, each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from fastppo import files
from fastppo.bench.peers import registry
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.bench.tokens.args import Args
from fastppo.children import Child
from fastppo.errors import MachineError, UserError
from fastppo.text import print_err

OWN = ("fastppo", "chunked", "compile")
"""Ours, and two ways in plain torch (`own.py`)."""
LONGEST_S = 600.0
"""A library may take."""


def run(args: Args) -> int:
    """Asks and times every library, prints the tables, and writes what was asked for.

    Returns:
        0, or 3 if a library that is installed could not be asked.

    Raises:
        UserError: a name or number is off, or a library asked for by name is not installed.
    """
    if args.rounds < 0:
        raise UserError(f"--rounds: {args.rounds} must not be negative")
    if args.threads < 1:
        raise UserError(f"--threads: {args.threads} must be at least 1")
    peers = registry.names(of_tokens=True)
    known = [*OWN, *peers]
    for name in args.libraries:
        if name not in known:
            raise UserError(f"NAME: {name!r} is unknown; use {', '.join(known)}")
        if name in peers:
            registry.python_of(name)  # raises with the remedy
    args = prepared(args, "tokens")
    entries: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    broken = False
    for name in dict.fromkeys(args.libraries) or known:
        if name in peers and not registry.is_current(name):
            failures.append({"id": "tokens", "impl": name, "reason": _absent(name)})
            continue
        print_err(f"{name} ...")
        try:
            entries += _entries(name, _asked(name, args.rounds, args.threads))
        except MachineError as error:
            broken = True
            failures.append({"id": "tokens", "impl": name, "reason": str(error)})
    record = result.new("tokens", entries, failures=failures, threads=args.threads)
    publish(record, args)
    return 3 if broken else 0


def _absent(name: str) -> str:
    missing = registry.find(name).missing
    return f"not installed: {missing or f'`fastppo bench peers install {name}`'}"


def _asked(name: str, rounds: int, threads: int) -> dict[str, Any]:
    """The answer of a library's process, checked.

    Raises:
        MachineError: it ended without one, or took too long.
    """
    command = [sys.executable, "-m", "fastppo.bench.tokens.own", name]
    if name not in OWN:
        command = registry.command(name)
    request = json.dumps({"rounds": rounds, "threads": threads})
    # the textbook and the library are to have the same cores
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(request.encode())
        given.seek(0)
        with Child(command, stdin=given, stdout=subprocess.PIPE, stderr=said, env=env) as child:
            assert child.stdout is not None
            code = child.wait(LONGEST_S)
            if code is None:
                raise MachineError(f"took over {LONGEST_S:.0f} s")
            answer = child.stdout.read()
        said.seek(0)
        last = (said.read().decode(errors="replace").strip().splitlines() or ["said nothing"])[-1]
    lines = answer.strip().splitlines()
    try:
        found = files.parse_json(lines[-1]) if lines else None
    except files.Unreadable:
        found = None
    if code or not isinstance(found, dict) or not _is_answer(found):
        raise MachineError(f"ended with exit code {code} and no answer: {last[:200]}")
    return found


def _is_answer(found: Mapping[str, Any]) -> bool:
    """Whether it has the fields that `token_child.serve` writes."""
    texts = all(isinstance(found.get(name), str) for name in ("version", "called"))
    answers, measured = found.get("answers"), found.get("measured")
    return (
        texts
        and isinstance(answers, dict)
        and all(isinstance(one, dict) and isinstance(one.get("text"), str)
                and (one.get("value") is None or isinstance(one["value"], int | float))
                for one in answers.values())
        and isinstance(measured, dict)
        and all(isinstance(one, dict) and _is_measured(one) for one in measured.values())
    )  # fmt: skip


def _is_measured(one: Mapping[str, Any]) -> bool:
    seconds, peaks = one.get("seconds"), one.get("peak_bytes")
    if not isinstance(seconds, dict) or not isinstance(peaks, dict):
        return False
    ours, theirs = (seconds.get(way) for way in ("library", "eager"))
    if not isinstance(ours, list) or not isinstance(theirs, list) or len(ours) != len(theirs):
        return False
    timed = bool(ours) and all(isinstance(x, float) and x > 0 for x in (*ours, *theirs))
    return timed and all(
        isinstance(peaks.get(way), int) and peaks[way] > 0 for way in ("library", "eager")
    )


def _entries(name: str, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a result file holds of a library: its answers, and each of its times."""
    shared = {"version": answer["version"], "called": answer["called"]}
    entries = []
    if answer["answers"]:
        detail = shared | {"answers": answer["answers"]}
        number = [float(len(answer["answers"]))]
        entries.append(_entry("answers", name, "questions", "higher", number, detail))
    for what, one in answer["measured"].items():
        detail = shared | {
            "eager_s": one["seconds"]["eager"],
            "peak_bytes": one["peak_bytes"]["library"],
            "eager_peak_bytes": one["peak_bytes"]["eager"],
        }
        entries.append(_entry(what, name, "s", "lower", one["seconds"]["library"], detail))
    return entries


def _entry(
    what: str, name: str, unit: str, better: str, samples: Sequence[float], detail: Any
) -> dict[str, Any]:
    return {
        "id": f"tokens/{what}",
        "impl": name,
        "unit": unit,
        "better": better,
        "clock": "wall",
        "launches": [{"order": 0, "samples": list(samples)}],
        "tokens": detail,
    }
