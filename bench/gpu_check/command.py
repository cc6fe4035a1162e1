"""`fastppo gpu-check --out DIR`: all that only a GPU can tell, in one command of some minutes.

Three stages, each with its share of the time: every kernel against float64, the kernel grid by both
clocks, and training rates of whole updates. DIR/gpu-check.json holds it all, samples included;
DIR/gpu-check.md is the same as tables, for docs/results.md. Both are written after every stage,
with `complete` false until the last one. Needs no package beyond what trains.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastppo import files, paths, signals
from fastppo.bench.gpu_check.args import Args
from fastppo.bench.kernels import command as kernels
from fastppo.bench.kernels.cases import cases, checks
from fastppo.bench.publish import keep, mirror
from fastppo.bench.report import markdown as report_markdown
from fastppo.bench.report.data import run_of
from fastppo.bench.results import result
from fastppo.devices import resolve_device
from fastppo.errors import MachineError, UserError
from fastppo.kernels.tools.case import Case
from fastppo.text import print_err, print_out
from fastppo.tracking import wandb_names

RECORD, TABLES = "gpu-check.json", "gpu-check.md"
GRID_SHARE = 0.75
"""Part of that after which no further kernel is timed."""
WORKLOADS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"num_envs": 64, "num_steps": 128, "num_minibatches": 4},
    "HalfCheetah-v4": {"num_envs": 64, "num_steps": 64, "num_minibatches": 4},
    "Pong-v5": {"num_envs": 64, "num_steps": 128, "num_minibatches": 4},
}


def correctness(device: torch.device, quick: bool, outcomes: list[dict[str, Any]]) -> None:
    """Runs every check; a line per failure on stderr.

    Args:
        outcomes: name, passed and the reason of each are added here.
    """

    def outcome(name: str, check: Any) -> None:
        reason = None
        try:
            check()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            print_err(f"WRONG {name}: {reason}")
        outcomes.append({"name": name, "passed": reason is None, "reason": reason})

    for name, check in checks(device):
        outcome(name, check)
    for case in cases(device, quick=quick):
        outcome(case.id, lambda case=case: kernels.check(case, case.build(device)))


def training(env_id: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Env steps/s of whole updates after two that warm up, or why there are none."""
    try:
        import envpool  # noqa: F401

        from fastppo import presets
        from fastppo.config import Config
        from fastppo.tasks import describe
        from fastppo.trainer import Trainer
    except ImportError as error:
        return {"env_id": env_id, "not_measured": str(error)}
    preset = presets.PRESETS[presets.preset_for(describe(env_id))]
    settings = preset | WORKLOADS[env_id] | {"total_timesteps": 10**9}
    config = Config(env_id=env_id, device=str(device), **settings)
    trainer = Trainer(config)
    try:
        for _ in range(2):
            trainer.run_update()
        updates: list[dict[str, Any]] = []
        stop = time.monotonic() + seconds
        while not updates or time.monotonic() < stop:
            updates.append(trainer.run_update())
    finally:
        trainer.close()
    total = sum(u["env_steps"] / u["env_steps_per_s"] for u in updates)
    phases = sorted(key for key in updates[0] if key.startswith("time/") and key != "time/total")
    return {
        "env_id": env_id,
        "num_envs": config.num_envs,
        "backend": trainer.backend,
        "updates": len(updates),
        "env_steps_per_s": sum(u["env_steps"] for u in updates) / total,
        "samples": [u["env_steps_per_s"] for u in updates],
        "phase_shares": {key[5:]: sum(u[key] for u in updates) / total for key in phases},
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as `fastppo report --md` writes it, without rich."""
    return report_markdown.markdown([run_of(record)])


def run(args: Args) -> int:
    """Runs the stages.

    Returns:
        0 all kernels are right, 1 one is not, 3 no GPU, or something was not measured.
    """
    start = time.monotonic()
    if not args.seconds > 0:
        raise UserError(f"--seconds: {args.seconds} must be a number above 0")
    paths.check_folder(args.out, "--out", (RECORD, TABLES))
    wandb_names.mode_for(args.wandb)  # online without a key: before any work
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError("device: torch sees no GPU; --device cpu rehearses the command")
    device = resolve_device(args.device)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out: cannot make {args.out}: {error.strerror}; name another folder"
        ) from None
    check = GpuCheck(args.out, start)
    with check:
        check.run(device, args)
    print(check.tables)
    check.publish(args)
    seconds = time.monotonic() - start
    print_out(f"results: {args.out / RECORD} and .md, in {seconds:.0f} s")
    if check.wrong:
        return 1
    return 3 if check.unseen else 0


class GpuCheck:
    """What was found so far, on disk after every stage, and also where the block is cut off.

    Args:
        folder: of gpu-check.json and gpu-check.md.
        start: of the command, on time.monotonic's clock.
    """

    def __init__(self, folder: Path, start: float) -> None:
        self.timings: list[kernels.Timing] = []
        self.tables = ""
        """What gpu-check.md holds."""
        self._folder = folder
        self._start = start
        self._outcomes: list[dict[str, Any]] = []
        self._runs: list[dict[str, Any]] = []
        self._left_out: list[Case] = []
        self._complete = False

    def __enter__(self) -> "GpuCheck":
        return self

    def __exit__(self, *_: object) -> None:
        if self._outcomes:
            self.write()

    @property
    def wrong(self) -> int:
        """Checks that failed."""
        return sum(not outcome["passed"] for outcome in self._outcomes)

    @property
    def unseen(self) -> bool:
        """Whether something could not be measured."""
        lost = any("not_measured" in run for run in self._runs)
        return lost or bool(kernels.failures(self.timings, self._left_out))

    def run(self, device: torch.device, args: Args) -> None:
        """All stages; of a kernel that is wrong nothing is timed."""
        correctness(device, args.quick, self._outcomes)
        self.write()
        checks = len(self._outcomes)
        print_out(f"correctness: {checks - self.wrong} of {checks} checks passed")
        if not self.wrong:
            deadline = self._start + GRID_SHARE * args.seconds
            self._left_out = kernels.run_grid(
                device, self.timings, quick=args.quick, deadline=deadline
            )
            self.write()
            left = max(3.0, args.seconds - (time.monotonic() - self._start))
            share = left / (2 * len(WORKLOADS))  # other half: environments, compilation, warm-up
            for env_id in WORKLOADS:
                self._runs.append(training(env_id, device, share))
                self.write()
        self._complete = True

    def record(self) -> dict[str, Any]:
        """The result file as it stands."""
        return kernels.record_of(self.timings, self._left_out) | {
            "kind": "gpu-check",
            "complete": self._complete,
            "seconds": time.monotonic() - self._start,
            "correctness": self._outcomes,
            "training": self._runs,
        }

    def publish(self, args: Args) -> None:
        """Makes what was asked for besides the two files."""
        record = self.record()
        keep(record, args)
        mirror(record, replace(args, json=args.json or self._folder / RECORD))

    def write(self) -> None:
        """Brings both files up to date."""
        with signals.held():
            record = self.record()
            result.write(self._folder / RECORD, record)
            self.tables = markdown(record)
            files.write(self._folder / TABLES, self.tables)
