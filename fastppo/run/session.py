"""One `fastppo train`: a trainer, its run directory, its trackers, and how they end together."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastppo import machine, settings, signals, streams
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.own_envs import OwnEnvs
from fastppo.revision import revision
from fastppo.run import loop
from fastppo.run.args import TrainArgs
from fastppo.run.evaluations import Evaluations
from fastppo.run.progress import make_progress
from fastppo.run.rundir import RunDir
from fastppo.signals import StopRequest
from fastppo.text import print_err, print_out
from fastppo.tracking import trackers as tracking
from fastppo.tracking.trackers import Tracker
from fastppo.trainer import Trainer
from fastppo.waiting import waiting


@dataclass(frozen=True, slots=True)
class Extras:
    """What only Python passes."""

    own: OwnEnvs | None = None
    """Trains on these in place of EnvPool's."""
    eval_own: OwnEnvs | None = None
    """Is evaluated in these."""
    on_update: Callable[[dict[str, Any]], None] | None = None
    """Takes the metrics of every update; its time is in no rate."""


NONE = Extras()


def run(args: TrainArgs) -> int:
    """Runs `fastppo train`; errors as `start` and `resume`."""
    if args.resume is not None:
        resume(args.resume, quiet=args.quiet)
        return 0
    config = settings.checked(args, Config)
    return loop.begin(args, config, lambda: start(config, args.run_dir, quiet=args.quiet))


def start(
    config: Config,
    run_dir: Path | None,
    *,
    quiet: bool,
    extras: Extras = NONE,
) -> Path:
    """Trains from the first update into a new run directory.

    Returns:
        The run directory.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    _check(config, extras)
    stop = StopRequest()
    # built first: a config that cannot run, or a signal meanwhile, leaves no folder behind
    with waiting("starting environments, compiling kernels"):
        trainer = Trainer(config, own=extras.own, check_stop=stop.check)
    record = _record(trainer)
    with stop:
        run = RunDir.create(run_dir, config, record)
        run.save(0, trainer.state(), config.keep_checkpoints)
        tracker = tracking.make_tracker(config, run.path, record)
        _train(trainer, run, tracker, stop, quiet=quiet, extras=extras)
    return run.path


def resume(
    run_dir: Path,
    *,
    quiet: bool,
    extras: Extras = NONE,
) -> Path:
    """Goes on from a run's newest checkpoint, or begins where a run ended before its first.

    Returns:
        The run directory.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    run = RunDir.open(run_dir)
    config = run.read_config()
    state = run.load()
    if state is None:
        print_err(f"{run_dir} has no checkpoint yet: from the beginning")
    elif state["config"] != config.to_dict():
        raise UserError(f"checkpoint: {run.checkpoints} belongs to another run than config.json")
    if state is not None and state["update"] >= config.num_updates:
        print_out(
            f"{run_dir} is complete: {state['update']} updates, {state['global_step']} env steps"
        )
        return run_dir
    _check(config, extras)
    stop = StopRequest()
    run.resume(0 if state is None else state["update"])
    with waiting("starting environments, compiling kernels"):
        trainer = Trainer(config, state=state, own=extras.own, check_stop=stop.check)
    with stop:
        if state is None:
            run.save(0, trainer.state(), config.keep_checkpoints)
        tracker = tracking.make_tracker(
            config,
            run.path,
            _record(trainer),
            after_update=trainer.update,
            after_step=trainer.global_step,
        )
        _train(trainer, run, tracker, stop, quiet=quiet, extras=extras)
    return run_dir


def _check(config: Config, extras: Extras) -> None:
    """Refuses what would fail later, before anything is built."""
    tracking.check(config)
    if config.eval_interval and extras.own is not None and extras.eval_own is None:
        raise UserError(
            f"eval_interval: {config.eval_interval} needs eval_envs, environments beside those "
            "that are trained on"
        )


def _record(trainer: Trainer) -> dict[str, Any]:
    """When the run began, of which code, and what it runs on."""
    return machine.record() | {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": revision(),
        "backend": trainer.backend,
        "engine": trainer.engine.name,
        "precision": trainer.precision,
        "stepping": trainer.engine.stepping(trainer.env),
        "device": str(trainer.device),
        "task": {"spec": trainer.spec.to_dict(), "actions": trainer.env.actions.to_dict()},
        "threads": {
            "env": trainer.thread_plan.env_threads,
            "torch": trainer.thread_plan.torch_threads,
        },
    }


def _train(
    trainer: Trainer,
    run: RunDir,
    tracker: Tracker,
    stop: StopRequest,
    *,
    quiet: bool,
    extras: Extras,
) -> None:
    evaluate = Evaluations(run, trainer.config, extras.eval_own)
    warned = False

    def evaluated(_: dict[str, Any]) -> dict[str, Any]:
        return evaluate.now(trainer.state()) if evaluate.is_due(trainer.update) else {}

    def logged(metrics: dict[str, Any]) -> None:
        nonlocal warned
        if extras.on_update is not None:
            extras.on_update(metrics)
        if metrics["env/non_finite_rows"] and not warned:
            warned = True
            lost = trainer.env.gate.warning()
            signals.tell(f"fastppo: warning: {lost}; env/non_finite_rows goes on counting")

    choice = trainer.engine_choice
    with streams.guarded():
        loop.run(
            trainer,
            run,
            tracker,
            stop,
            make_progress(trainer.config, quiet=quiet),
            before_logged=evaluated,
            after_logged=logged,
            said_first=None if quiet else f"engine {choice.name}: {choice.reason}",
        )
        if not quiet:
            lost = trainer.env.gate.rows.sum()
            left_out = f", {lost} that were not finite left out" if lost else ""
            print_out(f"done: {trainer.global_step} env steps in {run.path}{left_out}")
            loop.say_next(trainer.config, run, evaluates=extras.own is None)
