"""A learner's updates, one after another: logged, mirrored, shown and saved, however they end."""

import json
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from fastppo import signals, streams
from fastppo.config import RunConfig
from fastppo.errors import Diverged, Interrupted, MachineError, UserError
from fastppo.run.args import RunArgs
from fastppo.run.progress import Progress
from fastppo.run.rundir import RunDir
from fastppo.signals import StopRequest
from fastppo.text import called, print_out
from fastppo.token_config import command_of
from fastppo.tracking import wandb_names
from fastppo.tracking.trackers import Tracker


class Learner(Protocol):
    """What learns: a trainer of control tasks, or of tokens."""

    @property
    def config(self) -> RunConfig:
        """The settings."""

    @property
    def update(self) -> int:
        """Updates so far."""

    def run_update(self) -> dict[str, Any]:
        """One update; its metrics, plain numbers."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def close(self) -> None:
        """Lets go of what outlives the process's memory."""


Hook = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the metrics of an update, off the clock of its rates; returns more of them."""


def begin(args: RunArgs, config: RunConfig, start: Callable[[], object]) -> int:
    """Shows the settings, or trains several seeds in processes of their own, or starts one run.

    Returns:
        The exit code.
    """
    if args.seeds < 1:
        raise UserError(f"seeds: {args.seeds} must be above 0")
    if args.show_config:
        streams.needed()
        print(json.dumps(config.to_dict(), indent=2))
    elif args.seeds > 1:
        from fastppo.run import seeds  # takes rich's tables

        return seeds.train(config, args.run_dir, count=args.seeds, jobs=args.jobs, quiet=args.quiet)
    else:
        start()
    return 0


def run(
    learner: Learner,
    run_dir: RunDir,
    tracker: Tracker,
    stop: StopRequest,
    progress: Progress,
    *,
    before_logged: Hook = lambda _: {},
    after_logged: Callable[[dict[str, Any]], None] = lambda _: None,
    said_first: str | None = None,
) -> None:
    """Runs all updates that are left, and saves the last one whatever happens.

    Args:
        progress: is entered here; None of it is shown before `said_first`.

    Raises:
        MachineError, Diverged, Interrupted, and what a hook raises.
    """
    config = learner.config
    saved = learner.update

    def save() -> None:
        nonlocal saved
        if learner.update > saved:
            run_dir.save(learner.update, learner.state(), config.keep_checkpoints)
            saved = learner.update

    exit_code = 1
    streams.mirror("run")
    if said_first is not None:
        print_out(said_first)
    with ExitStack() as closing:
        # the last one first; each of them whatever becomes of the others
        closing.callback(lambda: tracker.close(exit_code))
        closing.callback(run_dir.close)
        closing.callback(learner.close)
        try:
            with progress:
                _loop(learner, run_dir, tracker, progress, stop, save, before_logged, after_logged)
            exit_code = 0
        except KeyboardInterrupt:  # a second one, in somebody else's program: at once
            raise
        except BaseException as end:  # whatever it is, what was learned is saved first
            exit_code = end.exit_code if isinstance(end, Interrupted | Diverged) else 1
            _save_last(save, learner, run_dir, end)
            raise


def _loop(
    learner: Learner,
    run_dir: RunDir,
    tracker: Tracker,
    progress: Progress,
    stop: StopRequest,
    save: Callable[[], None],
    before_logged: Hook,
    after_logged: Callable[[dict[str, Any]], None],
) -> None:
    config = learner.config
    logging_s = 0.0
    while learner.update < config.num_updates:
        stop.check()
        # printed one update late, and outside time/total: no rate contains it
        metrics = learner.run_update() | {"time/logging": logging_s}
        metrics |= before_logged(metrics)
        logged_from = time.perf_counter()
        run_dir.log(metrics)
        tracker.log(metrics)
        progress.show(metrics)
        after_logged(metrics)
        logging_s = time.perf_counter() - logged_from
        check_diverged(metrics["skipped_steps"], config)
        if learner.update % config.checkpoint_interval == 0:
            save()
    save()


def check_diverged(skipped_steps: int, config: RunConfig) -> None:
    """Raises once as many optimizer steps were skipped as `max_skipped_steps` allows.

    Raises:
        Diverged: the parameters are those of the last good step, fit to be saved.
    """
    if skipped_steps >= config.max_skipped_steps:
        raise Diverged(
            f"max_skipped_steps: {skipped_steps} optimizer steps had a loss or gradient that is "
            "not finite; lower learning_rate, or look at the rewards and observations"
        )


def say_next(config: RunConfig, run_dir: RunDir, *, evaluates: bool) -> None:
    """Commands that work as they are pasted."""
    folder = shlex.quote(str(run_dir.path))
    if evaluates:
        print_out(f"next: {called()} eval {folder} --episodes 20")
    print_out(f"look: {called()} report {folder}")
    if wandb_names.mode_for(config.wandb) == "offline":
        print_out(f"upload: {called()} track sync {folder}")


def _save_last(
    save: Callable[[], None], learner: Learner, run_dir: RunDir, end: BaseException
) -> None:
    """Saves, and says how to go on.

    Raises:
        MachineError: it cannot, and that is more than a signal says.
    """
    try:
        save()
    except MachineError as error:
        if isinstance(end, Interrupted | Diverged):
            raise
        if not isinstance(end, MachineError):  # whose line says as much: a disk that is full, say
            signals.tell(f"fastppo: warning: {error}")
        return
    signals.tell(
        f"stopped after update {learner.update}, checkpoint written; go on with: {called()} "
        f"{command_of(learner.config.env_id)} --resume {shlex.quote(str(run_dir.path))}"
    )
