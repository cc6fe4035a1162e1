"""One `fastppo train`: a trainer, its run directory, its trackers, and how they end together."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastppo import machine
from fastppo.config import Config
from fastppo.errors import Diverged, Interrupted, UserError
from fastppo.run.progress import make_progress
from fastppo.run.rundir import RunDir
from fastppo.run.signals import StopRequest
from fastppo.tracking import trackers as tracking
from fastppo.tracking.trackers import Tracker
from fastppo.train import Trainer


def start(config: Config, run_dir: Path | None, *, quiet: bool) -> None:
    """Trains from the first update into a new run directory.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    tracking.check(config)
    with StopRequest() as stop:
        # built first: a config that cannot run leaves no folder behind
        trainer = Trainer(config, check_stop=stop.check)
        record = _record(trainer)
        run = RunDir.create(run_dir, config, record)
        run.save(0, trainer.state(), config.keep_checkpoints)
        tracker = tracking.make_tracker(config, run.path, record)
        _train(trainer, run, tracker, stop, quiet=quiet)


def resume(run_dir: Path, *, quiet: bool) -> None:
    """Goes on from a run's newest checkpoint.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    run = RunDir.open(run_dir)
    config = run.read_config()
    state = run.load()
    if state["config"] != config.to_dict():
        raise UserError(f"checkpoint: {run.checkpoints} belongs to another run than config.json")
    if state["update"] >= config.num_updates:
        print(f"{run_dir} is complete: {state['update']} updates, {state['global_step']} env steps")
        return
    tracking.check(config)
    with StopRequest() as stop:
        run.resume(state["update"])
        trainer = Trainer(config, state=state, check_stop=stop.check)
        tracker = tracking.make_tracker(
            config,
            run.path,
            _record(trainer),
            after_update=trainer.update,
            after_step=trainer.global_step,
        )
        _train(trainer, run, tracker, stop, quiet=quiet)


def _record(trainer: Trainer) -> dict[str, Any]:
    """What the run runs on."""
    return machine.record() | {
        "backend": trainer.backend,
        "engine": trainer.engine.name,
        "device": str(trainer.device),
        "threads": {
            "env": trainer.thread_plan.env_threads,
            "torch": trainer.thread_plan.torch_threads,
        },
    }


def _train(
    trainer: Trainer, run: RunDir, tracker: Tracker, stop: StopRequest, *, quiet: bool
) -> None:
    config = trainer.config
    saved = trainer.update

    def save() -> None:
        nonlocal saved
        if trainer.update > saved:
            run.save(trainer.update, trainer.state(), config.keep_checkpoints)
            saved = trainer.update

    exit_code = 1
    logging_s = 0.0
    warned = False
    try:
        with make_progress(config, quiet=quiet) as progress:
            while trainer.update < config.num_updates:
                stop.check()
                # told one update late, and outside time/total: no rate contains it
                metrics = trainer.run_update() | {"time/logging": logging_s}
                logged_from = time.perf_counter()
                run.log(metrics)
                tracker.log(metrics)
                progress.show(metrics)
                if metrics["env/non_finite_rows"] and not warned:
                    warned = True
                    _warn(f"{trainer.env.gate.told()}; env/non_finite_rows goes on counting")
                logging_s = time.perf_counter() - logged_from
                trainer.check_diverged()
                if trainer.update % config.checkpoint_interval == 0:
                    save()
        save()
        exit_code = 0
    except (Interrupted, Diverged) as end:
        exit_code = end.exit_code
        save()
        print(
            f"stopped after update {trainer.update}, checkpoint written; go on with: "
            f"fastppo train --resume {run.path}",
            file=sys.stderr,
        )
        raise
    finally:
        trainer.close()
        run.close()
        tracker.close(exit_code)
    if not quiet:
        lost = trainer.env.gate.rows.sum()
        left_out = f", {lost} that were not finite left out" if lost else ""
        print(f"done: {trainer.global_step} env steps in {run.path}{left_out}")
        print(f"next: fastppo eval {run.path} --episodes 20")


def _warn(text: str) -> None:
    with suppress(OSError):  # nobody can read it: no reason to end a run
        print(f"fastppo: warning: {text}", file=sys.stderr)
