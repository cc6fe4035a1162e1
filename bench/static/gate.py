"""Compares the counts of kernels with those of before, committed or of another revision."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

from fastppo import files
from fastppo.bench.static.build import Build, Key, Stats
from fastppo.bench.static.numba_asm import AsmStats
from fastppo.bench.static.sass import CubinStats
from fastppo.errors import MachineError, UserError
from fastppo.revision import git

SCHEMA = "fastppo.static/1"
EXPECTED = Path(__file__).parent / "expected"
_READ: dict[str, Callable[[dict[str, Any]], Stats]] = {
    "triton": CubinStats.from_json,
    "numba": AsmStats.from_json,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """One kernel for one target, and what it was."""

    kernel: str
    target: str
    now: Stats | None
    """None for a kernel that is gone."""
    before: Stats | None
    """None for a kernel that is new, or where nothing is compared."""
    verdict: str
    """same (every opcode in order, and every count), moved, new, gone, FAIL; empty without
    anything to compare with."""
    problems: list[str]

    def entry(self, compiler: str) -> dict[str, Any]:
        """One of `results` of a result file; a kernel that is gone has no sample."""
        stats = self.now or self.before
        assert stats is not None, self.kernel
        return {
            "id": f"static/{compiler}/{self.target}/{self.kernel}",
            "impl": "fastppo",
            "unit": "instructions",
            "better": "lower",
            "clock": "none",
            "launches": [{"order": 0, "samples": [self.now.instructions] if self.now else []}],
            "static": {
                "compiler": compiler,
                "kernel": self.kernel,
                "target": self.target,
                "verdict": self.verdict,
                "problems": self.problems,
                "counts": stats.shown(),
                "now": self.now and self.now.to_json(),
                "before": self.before and self.before.to_json(),
            },
        }


def compare(
    now: dict[Key, Any],
    before: dict[Key, Any] | None,
    *,
    tolerance: float,
    gone_fails: bool = False,
) -> list[KernelRow]:
    """One row per kernel and target: those of `now` in their order, then those that are gone.

    Args:
        before: None to compare with nothing; then only a spill fails.
        tolerance: part by which a kernel's instructions may grow.
        gone_fails: whether a kernel that is only in `before` fails.
    """
    rows = []
    for (kernel, target), stats in now.items():
        old = (before or {}).get((kernel, target))
        problems = stats.problems(old, tolerance)
        if problems:
            verdict = "FAIL"
        elif old is None:
            verdict = "" if before is None else "new"
        else:
            verdict = "same" if stats == old else "moved"
        rows.append(
            KernelRow(
                kernel=kernel,
                target=target,
                now=stats,
                before=old,
                verdict=verdict,
                problems=problems,
            )
        )
    for kernel, target in (before or {}).keys() - now.keys():
        rows.append(
            KernelRow(
                kernel=kernel,
                target=target,
                now=None,
                before=(before or {})[kernel, target],
                verdict="FAIL" if gone_fails else "gone",
                problems=["is no longer compiled"] if gone_fails else [],
            )
        )
    return rows


def expectation_path(compiler: str, versions: dict[str, str]) -> Path:
    """The file that holds what `compiler` in these versions is expected to make."""
    named = "-".join(f"{name}-{version}" for name, version in versions.items())
    assert named.startswith(compiler), versions
    return EXPECTED / f"static-{named}.json"


def write_expectation(path: Path, build: Build) -> None:
    """Replaces the file: sorted, one kernel and target per line, so that a diff reads well."""
    lines = [
        f"  {json.dumps(f'{kernel} | {target}')}: {json.dumps(stats.to_json())}"
        for (kernel, target), stats in sorted(build.kernels.items())
    ]
    head = f'"schema": {json.dumps(SCHEMA)},\n "versions": {json.dumps(build.versions)}'
    path.parent.mkdir(exist_ok=True)
    files.write(path, f'{{{head},\n "kernels": {{\n' + ",\n".join(lines) + "\n }\n}\n")


def read_expectation(path: Path, compiler: str, chosen: Callable[[Key], bool]) -> dict[Key, Stats]:
    """What `write_expectation` wrote, of the chosen kernels.

    Raises:
        MachineError: no such file, no JSON, or another schema; names the remedy.
    """
    remedy = "`fastppo static --update` where the kernels are known to be good"
    try:
        record = files.parse_json(path.read_bytes())
    except FileNotFoundError:
        raise MachineError(
            f"{path.name}: nothing is expected of this version of {compiler}; install the pinned "
            f"one, or run {remedy}"
        ) from None
    except (OSError, ValueError) as error:  # a merge conflict, say
        raise MachineError(f"{path.name}: {error}; restore it, or run {remedy}") from None
    found = record.get("schema") if isinstance(record, dict) else None
    if found != SCHEMA:
        raise MachineError(f"{path.name}: schema {found!r} is not {SCHEMA!r}; run {remedy}")
    kernels = record.get("kernels")
    expected: dict[Key, Stats] = {}
    nothing: dict[str, Any] = {"kernels": {}}
    for key, values in (kernels if isinstance(kernels, dict) else nothing).items():
        kernel, _, target = key.rpartition(" | ")
        try:
            stats: Any = _READ[compiler](values)
            whole = all(_has_its_type(stats, field) for field in fields(stats))
        except (KeyError, TypeError, ValueError, AttributeError):
            whole = False
        if not whole:
            raise MachineError(
                f"{path.name}: {key[:80]!r} does not hold a kernel's counts; restore it, or run "
                f"{remedy}"
            )
        if chosen((kernel, target)):
            expected[kernel, target] = stats
    return expected


def _has_its_type(stats: Any, field: Field[Any]) -> bool:
    """Counts are whole and not below 0, also those by width."""
    value = getattr(stats, field.name)
    if field.type is str:
        return isinstance(value, str)
    counts = value.values() if isinstance(value, dict) else [value]
    is_by_width = get_origin(field.type) is dict
    return isinstance(value, dict) == is_by_width and all(
        isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts
    )


def commit_of(ref: str, repository: Path, option: str) -> str:
    """The commit that a revision names.

    Raises:
        UserError: no repository, or no such revision.
    """
    top = git(repository, "rev-parse", "--show-toplevel")
    # a package installed below somebody's repository is none of its files
    if top is None or Path(top.decode().strip()).resolve() != repository.resolve():
        raise UserError(
            f"{option}: {ref!r} cannot be looked up, {str(repository)!r} is not a git repository; "
            "run from a clone of fastppo"
        )
    commit = git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        raise UserError(
            f"{option}: {ref!r} is not a revision of {str(repository)!r}; name a branch, tag or "
            "commit, and in a shallow clone fetch it first"
        )
    return commit.decode().strip()


def check_out(
    ref: str, repository: Path, target: Path, *, option: str = "--base", kernels: bool = True
) -> str:
    """Unpacks revision `ref` of `repository` into `target`, and returns its commit.

    Args:
        option: names the revision in messages.
        kernels: whether there must be kernels to compile.

    Raises:
        UserError: no repository, no such revision, or one without kernels.
    """
    sha = commit_of(ref, repository, option)
    archive = git(repository, "archive", "--format=tar", sha, timeout_s=None)
    assert archive is not None, f"git archive {sha} failed"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(target, filter="data")
    if kernels and not (target / "fastppo" / "kernels" / "aot.py").exists():
        raise UserError(f"{option}: {ref!r} has no kernels/aot.py; name a later revision")
    return sha
