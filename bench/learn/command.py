"""`fastppo bench learn`: does it learn, in how many env steps and how many seconds, over seeds.

Speed without learning is worth nothing, so `bench train --parity` takes its word from here
(`parity`). Each run is a fresh process that speaks `fastppo.bench.contract` and ends by itself
after `--total-timesteps`; the parent holds the clock.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastppo import signals
from fastppo.bench.launch import implementations
from fastppo.bench.learn import entries as learn_entries
from fastppo.bench.learn.args import Args
from fastppo.bench.learn.runs import Job, LearnTask, Trainings, interleaved, tell
from fastppo.bench.publish import keep, prepared, publish
from fastppo.bench.recipes import with_steps, workloads
from fastppo.bench.results import result
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.presets import PRESETS
from fastppo.returns import Threshold, threshold_of

DEFAULT = "fastppo,reference"


def run(args: Args) -> int:
    """Trains, keeps the result file up to date, and prints the tables.

    Returns:
        0, or 3 if a run failed.
    """
    if not args.env_ids:
        raise UserError("env_id: missing; name an EnvPool task, such as CartPole-v1")
    for name in ("seeds", "jobs", "total_timesteps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')}: {value} must be at least 1")
    chosen = implementations.parse(list(args.impl) or [DEFAULT])
    base = implementations.base_of(args.base, chosen, "trained")
    tasks = _tasks(args)
    seeds = range(1, args.seeds + 1)
    jobs = [job for task in tasks for job in interleaved(task, chosen, seeds)]
    args = prepared(args, "learn")
    study = Study(tasks, jobs, base=base, args=args)
    try:
        study.trainings.run()
    finally:  # an interrupt keeps what was measured
        with signals.held():
            study.update()
            publish(study.record, args)
    return 3 if study.record["failures"] else 0


class Study:
    """All runs, and the record of them as it stands.

    Args:
        args: how many runs side by side, and where the result file is kept.
    """

    def __init__(
        self,
        tasks: Sequence[LearnTask],
        jobs: Sequence[Job],
        *,
        base: str,
        args: Args,
    ) -> None:
        self.record: dict[str, Any] = result.new("learn", [])
        self.trainings = Trainings(jobs, args.jobs, self.keep)
        self._tasks = tasks
        self._names = list(dict.fromkeys(job.implementation.name for job in jobs))
        self._base = base
        self._args = args

    def keep(self) -> None:
        """Brings the record up to date, and its file if there is anything to say."""
        self.update()
        keep(self.record, self._args)

    def update(self) -> None:
        """Brings the record up to date."""
        seen, failures = self.trainings.curves, self.trainings.failures
        self.record["results"] = learn_entries.entries(
            self._tasks, self._names, seen, base=self._base, at_once=self._args.jobs
        )
        self.record["failures"] = list(failures)
        self.record["comparison"] = learn_entries.comparison(
            self._tasks, self._names, seen, failures, self._base
        )


def _tasks(args: Args) -> list[LearnTask]:
    if args.threshold is not None:
        if not math.isfinite(args.threshold):
            raise UserError(f"--threshold: {args.threshold} must be a finite number")
        if len(set(args.env_ids)) > 1:
            raise UserError(
                f"--threshold: one number for {len(set(args.env_ids))} environments; "
                "measure them one by one"
            )
    recipes = args.recipe.split(",") if args.recipe else []
    tasks = []
    for config in workloads(args.env_ids, recipes):
        config = _until_the_end(config, args.total_timesteps)
        known = threshold_of(config.env_id)
        if args.threshold is not None:
            known = Threshold(args.threshold, "--threshold")
        if known is None:
            tell(f"{config.env_id}: no threshold is known; --threshold X gives one")
            tasks.append(LearnTask(config, None))
        else:
            tasks.append(LearnTask(config, known.value, known.source))
    return tasks


def _until_the_end(config: Config, total_timesteps: int | None) -> Config:
    """The benchmark's settings with the end that `fastppo train` has, or the one asked for."""
    default = int(PRESETS[config.preset]["total_timesteps"])
    try:
        return with_steps(replace(config, seed=1), total_timesteps or default)
    except UserError as error:
        raise UserError(
            f"--{str(error).replace('total_timesteps', 'total-timesteps', 1)}"
        ) from None
