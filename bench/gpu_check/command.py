"""`fastppo gpu-check --out DIR`: all that only a GPU can tell, in one command of some minutes.

Training first, then every kernel against float64, the kernel grid, tilings, and the tests that need
a GPU: each stage is a process of its own with its share of the time, and its findings are on disk
as they come, in DIR/stages. DIR/gpu-check.json holds them all, samples included; DIR/gpu-check.md
is the same as tables, for docs/results.md. Both are written after every stage, with `complete`
false until the last one. Needs no package beyond what trains; kernels do not need EnvPool.
"""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastppo import files, paths, signals
from fastppo.bench.gpu_check.args import Args
from fastppo.bench.gpu_check.stages import PARTS, StageGroup, chosen
from fastppo.bench.kernels.command import OURS
from fastppo.bench.publish import keep, mirror
from fastppo.bench.report import markdown as report_markdown
from fastppo.bench.report.data import run_of
from fastppo.bench.results import result
from fastppo.children import Child
from fastppo.devices import resolve_device
from fastppo.errors import MachineError, UserError
from fastppo.text import print_err, print_out
from fastppo.tracking import wandb_names

RECORD, TABLES, STAGES = "gpu-check.json", "gpu-check.md", "stages"
CHILD = (sys.executable, "-m", "fastppo.bench.gpu_check.child")
LATE_S = 25.0
"""A stage may take so much longer than its share, for what it had begun."""


def markdown(record: dict[str, Any]) -> str:
    """The record as `fastppo report --md` writes it, without rich."""
    return report_markdown.markdown([run_of(record)])


def run(args: Args) -> int:
    """Runs the stages.

    Returns:
        0 all kernels are right, 1 one is not, 3 no GPU, or something was not measured.
    """
    if not args.seconds > 0:
        raise UserError(f"--seconds: {args.seconds} must be a number above 0")
    groups = chosen(args.only)
    paths.check_folder(args.out, "--out", (RECORD, TABLES))
    wandb_names.mode_for(args.wandb)  # online without a key: before any work
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError("device: torch sees no GPU; --device cpu rehearses the command")
    check = GpuCheck(args, resolve_device(args.device))
    try:
        check.stages.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out: cannot make {args.out}: {error.strerror}; name another folder"
        ) from None
    with check:
        check.run(groups)
    print(check.tables)
    record = check.record()
    keep(record, args)
    mirror(record, replace(args, json=args.json or args.out / RECORD))
    print_out(f"results: {args.out / RECORD} and .md, in {record['seconds']:.0f} s")
    if any(not outcome["passed"] for outcome in record["correctness"]):
        return 1
    lost = any("not_measured" in run for run in record["training"])
    return 3 if lost or record["failures"] else 0


class GpuCheck:
    """What was found so far, on disk after every stage, and also where the block is cut off."""

    def __init__(self, args: Args, device: torch.device) -> None:
        self.tables = ""
        """What gpu-check.md holds."""
        self.stages = args.out / STAGES
        self._args = args
        self._device = device
        self._start = time.monotonic()
        self._found: dict[str, list[Any]] = {name: [] for name in PARTS}
        self._ended: list[dict[str, Any]] = []
        self._complete = False

    def __enter__(self) -> "GpuCheck":
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def run(self, groups: Sequence[StageGroup]) -> None:
        """All groups in order; the time that one leaves is the others'."""
        self.write()
        for i, group in enumerate(groups):
            left = self._args.seconds - (time.monotonic() - self._start)
            share = left * group.weight / sum(one.weight for one in groups[i:])
            self._run_group(group, max(1.0, share))
            self.write()
        self._complete = True

    def _run_group(self, group: StageGroup, seconds: float) -> None:
        """Runs its stages side by side, and takes over what each found."""
        begin = time.monotonic()
        settings = (
            "quick" if self._args.quick else "full",
            "compile" if self._args.compile else "eager",
        )
        running: dict[str, Child] = {}
        codes: dict[str, int | None] = {}
        with ExitStack() as stack:
            for name in group.stages:
                target = self._target(name)
                target.unlink(missing_ok=True)
                given = (name, str(target), str(self._device), str(seconds), *settings)
                with target.with_suffix(".log").open("wb") as log:
                    child = Child([*CHILD, *given], stdout=log, stderr=log)
                running[name] = stack.enter_context(child)
            for name, child in running.items():
                left = begin + seconds + LATE_S - time.monotonic()
                codes[name] = child.wait(max(0.0, left))
        for name, code in codes.items():
            self._take(name, code, time.monotonic() - begin)

    def _target(self, name: str) -> Path:
        return self.stages / f"{name.replace('/', '-')}.json"

    def _take(self, name: str, code: int | None, seconds: float) -> None:
        """A stage has ended, or was ended: what it found, and how."""
        target = self._target(name)
        found: dict[str, list[Any]] = {}
        if target.is_file():
            found = json.loads(target.read_text())
        for part, values in found.items():
            self._found[part].extend(values)
        wrong = [one["name"] for one in found.get("correctness", ()) if not one["passed"]]
        how = "killed: over its time" if code is None else f"exit code {code}" if code else "done"
        if code != 0:
            said = target.with_suffix(".log").read_text(errors="replace").strip().splitlines()
            reason = f"{how}; {said[-1][:300]}" if said else how
            self._found["failures"].append({"id": name, "impl": OURS, "reason": reason})
            how = reason
        for check in wrong:
            print_err(f"WRONG {check}")
        counts = ", ".join(f"{len(values)} {part}" for part, values in found.items() if values)
        print_out(f"{name}: {how}, {seconds:.0f} s; {counts or 'nothing found'}")
        self._ended.append({"name": name, "outcome": how, "seconds": seconds})

    def record(self) -> dict[str, Any]:
        """The result file as it stands."""
        found = dict(self._found)
        record = result.new(
            "gpu-check",
            found.pop("results"),
            failures=found.pop("failures"),
            threads=torch.get_num_threads(),
            complete=self._complete,
            seconds=time.monotonic() - self._start,
            stages=self._ended,
            **found,
        )
        if self._args.sha is not None:
            record["code"] = {"sha": self._args.sha, "dirty": None}
        return record

    def write(self) -> None:
        """Brings both files up to date."""
        with signals.held():
            record = self.record()
            result.write(self._args.out / RECORD, record)
            self.tables = markdown(record)
            files.write(self._args.out / TABLES, self.tables)
