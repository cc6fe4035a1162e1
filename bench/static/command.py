"""`fastppo static`: what the compilers make of every kernel, gated without a GPU or a driver.

Triton kernels are compiled for three GPU architectures, numba kernels for one pinned CPU, and the
counts are printed: registers, spills, widths of loads, occupancy, packed arithmetic and so on.
With --check or --base a kernel fails that spills, splits wide loads or stores, fits fewer warps on
an SM, loses packed arithmetic, or grows in instructions beyond --tolerance. Compiling is
deterministic: two runs differ by nothing. The tolerance is for edits that add a few instructions
on purpose.
"""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fastppo
from fastppo import paths
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.bench.static import build as static_build
from fastppo.bench.static import gate as static_gate
from fastppo.bench.static import sass
from fastppo.bench.static.args import Args
from fastppo.bench.static.build import Build
from fastppo.bench.static.gate import KernelRow
from fastppo.cgroups import available_cores
from fastppo.errors import MachineError, UserError
from fastppo.text import print_err, print_out

Before = dict[str, dict[static_build.Key, static_build.Stats]]
"""Per compiler, what its kernels were."""

TREE = Path(fastppo.__file__).resolve().parent.parent


def run(args: Args) -> int:
    """Compiles, compares and prints.

    Raises:
        MachineError: something does not compile, or nothing is known to compare with.
        UserError: the request cannot be met.
    """
    _check_numbers(args)
    args = prepared(args, "static")
    compilers = [args.compiler] if args.compiler else list(static_build.COMPILERS)
    if args.arch and not args.compiler:
        compilers = ["triton"]
    _check_request(compilers, args)
    with ExitStack() as stack:
        # first, so that a mistyped name is reported at once
        base = None if args.base is None else _check_out(args.base, stack)
        now = _build(TREE, compilers, args)
        if args.kernel and not any(build.kernels for build in now.values()):
            names = ", ".join(name for build in now.values() for name in build.names)
            raise UserError(f"--kernel: no kernel is called {args.kernel!r}; there are {names}")
        before: Before = {}
        unknown: list[MachineError] = []
        if base is not None:
            before = _of_base(base, compilers, args)
        elif args.check:
            before, unknown = _expected(now, args)
    results = {
        compiler: static_gate.compare(
            now[compiler].kernels,
            before.get(compiler),
            tolerance=args.tolerance,
            gone_fails=args.check,
        )
        for compiler in compilers
    }
    against = {name: args.base or "bench/static/expected" for name in before}
    record = record_of(now, results, against)
    publish(record, args)
    return _conclude([row for rows in results.values() for row in rows], now, unknown, args)


def _check_numbers(args: Args) -> None:
    modes = {"--check": args.check, "--update": args.update, "--base": args.base is not None}
    asked = [flag for flag, is_on in modes.items() if is_on]
    if len(asked) > 1:
        raise UserError(f"{asked[0]}: cannot go with {asked[1]}; leave one out")
    if not (args.tolerance >= 0 and math.isfinite(args.tolerance)):
        raise UserError(f"--tolerance: {args.tolerance} must be a finite number, 0 or above")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs: {args.jobs} must be 1 or above")
    if args.update and (args.arch or args.kernel):
        raise UserError("--update: writes every kernel; leave out --arch and --kernel")
    if args.arch and args.compiler == "numba":
        raise UserError("--arch: is for GPUs; leave it out with --compiler numba")


def _check_request(compilers: Sequence[str], args: Args) -> None:
    outputs = {"--json": args.json, "--html": args.html, "--md": args.md, "--junit": args.junit}
    named = [(option, path) for option, path in outputs.items() if path is not None]
    paths.check_apart(named, static_gate.EXPECTED.glob("*.json"))
    if args.update:
        paths.check_folder(static_gate.EXPECTED, "--update")
    interpret = os.environ.get("TRITON_INTERPRET", "0")
    if "triton" in compilers and interpret not in ("", "0"):
        raise UserError(
            f"TRITON_INTERPRET: {interpret!r} asks for the interpreter, which compiles nothing; "
            "unset it"
        )
    for compiler in compilers:
        static_build.require(compiler)


def _build(tree: Path, compilers: Sequence[str], args: Args) -> dict[str, Build]:
    print_err(f"compiling {' and '.join(compilers)} kernels ...")
    return static_build.build(
        tree,
        compilers=compilers,
        arches=args.arch or tuple(sass.SHARED_PER_SM),
        chosen=lambda name: args.kernel in name,
        jobs=args.jobs or available_cores(),
    )


def _check_out(ref: str, stack: ExitStack) -> Path:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastppo-base-"))
    tree = Path(folder).resolve()
    static_gate.check_out(ref, TREE, tree)
    return tree


def _of_base(tree: Path, compilers: Sequence[str], args: Args) -> Before:
    try:
        return {name: part.kernels for name, part in _build(tree, compilers, args).items()}
    except MachineError as error:
        raise MachineError(f"--base {args.base}: {error}") from None


def _expected(now: dict[str, Build], args: Args) -> tuple[Before, list[MachineError]]:
    """What is expected of the chosen kernels per compiler, and why some of it is not known."""
    targets = {f"sm_{arch}" for arch in args.arch or ()}
    known: Before = {}
    unknown = []
    for compiler, build in now.items():
        try:
            known[compiler] = static_gate.read_expectation(
                static_gate.expectation_path(compiler, build.versions),
                compiler,
                lambda key: args.kernel in key[0] and (not targets or key[1] in targets),
            )
        except MachineError as error:
            unknown.append(error)
    return known, unknown


def _conclude(
    rows: Sequence[KernelRow],
    now: dict[str, Build],
    unknown: Sequence[MachineError],
    args: Args,
) -> int:
    counts = {
        verdict: sum(row.verdict == verdict for row in rows)
        for verdict in ("same", "moved", "new", "gone", "FAIL")
    }
    counted = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    print_out(
        f"{sum(row.now is not None for row in rows)} compiled{': ' if counted else ''}{counted}"
    )
    if counts["FAIL"]:
        if args.check:
            print("if this is meant: fastppo static --update, and commit bench/static/expected")
        elif args.update:
            print("bench/static/expected is as it was: repair the kernel first")
        return 1
    if args.update:
        for compiler, build in now.items():
            path = static_gate.expectation_path(compiler, build.versions)
            static_gate.write_expectation(path, build)
            print_out(f"written: {path}")
    unseen = list(map(str, unknown))
    if not rows:
        unseen.append("no kernel was found: nothing was gated")
    if args.check and counts["new"]:
        unseen.append(
            f"nothing is expected of {counts['new']} new kernels; where they are known to be good: "
            "fastppo static --update, and commit bench/static/expected"
        )
    if counts["gone"]:
        unseen.append(
            f"{counts['gone']} kernels of {args.base} are gone, so nothing is compared with them; "
            "where that is meant, leave out --base"
        )
    if unseen:
        raise MachineError("; ".join(unseen))
    return 0


def record_of(
    now: Mapping[str, Build], results: Mapping[str, Sequence[KernelRow]], against: Mapping[str, str]
) -> dict[str, Any]:
    """The result file.

    Args:
        against: what a compiler's kernels are compared with; absent: with nothing.
    """
    return result.new(
        "static",
        [row.entry(compiler) for compiler, rows in results.items() for row in rows],
        compilers={
            compiler: {"versions": now[compiler].versions, "against": against.get(compiler)}
            for compiler in results
        },
    )
