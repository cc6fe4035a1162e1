"""Trains implementations over seeds, a fresh process per run, in an order that takes turns."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from fastppo import threads
from fastppo.bench import recipes
from fastppo.bench.launch.implementations import Implementation
from fastppo.bench.launch.process import Failed, Launch
from fastppo.bench.learn.curves import Curve
from fastppo.config import Config
from fastppo.devices import resolve_device
from fastppo.tasks import spec_of
from fastppo.text import print_err

SHORT = 0.5
"""An implementation that ends before this part of its env steps has not trained.

Reset rows count among the steps asked for and not among those reported: some must be missing.
"""


@dataclass(frozen=True, slots=True)
class LearnTask:
    """What is learned, by every implementation and seed."""

    config: Config
    threshold: float | None
    threshold_source: str | None = None
    """Who says that this return counts as solved."""

    @property
    def name(self) -> str:
        return f"{self.config.env_id}/{recipes.label(self.config)}"

    @property
    def id(self) -> str:
        return f"learn/{self.name}"


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    task: LearnTask
    implementation: Implementation
    seed: int
    order: int


def interleaved(
    task: LearnTask, implementations: Sequence[Implementation], seeds: Sequence[int]
) -> Iterator[Job]:
    """A with seed 1, B with seed 1, B with seed 2, A with seed 2, ...: what drifts hits both."""
    order = 0
    for turn, seed in enumerate(seeds):
        for one in implementations if turn % 2 == 0 else reversed(implementations):
            yield Job(task, one, seed, order)
            order += 1


class Trainings:
    """All runs; what was seen stays readable if `run` is interrupted.

    Args:
        jobs: what to run, in this order.
        at_once: processes side by side; with more than one, wall times disturb one another.
        finished: called after every run, from the thread that it ran in, one at a time.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int, finished: Callable[[], None]) -> None:
        self.curves: dict[tuple[str, str], list[Curve]] = {}
        """By task and implementation; of those that ended or were cut short by an interrupt."""
        self.failures: list[dict[str, Any]] = []
        self._jobs = list(jobs)
        self._at_once = at_once
        self._finished = finished
        self._lock = threading.Lock()
        self._open: list[Launch] = []
        self._stopping = False

    def run(self) -> None:
        """Every job. A failed one is reported and left out, the others go on."""
        self._drop_missing()
        if self._at_once == 1:
            for job in self._jobs:
                self._train(job)
            return
        pool = ThreadPoolExecutor(self._at_once)
        try:
            for done in [pool.submit(self._train, job) for job in self._jobs]:
                done.result()
        finally:
            self._stop()
            pool.shutdown(cancel_futures=True)

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for launch in self._open:
                launch.kill()

    def _drop_missing(self) -> None:
        seen: set[str] = set()
        for job in self._jobs:
            missing = job.implementation.missing
            if missing is not None and (job.task.id, job.implementation.name) not in self.curves:
                self.curves[job.task.id, job.implementation.name] = []
                self._fail(job, missing, reported=job.implementation.name not in seen)
                seen.add(job.implementation.name)
        self._jobs = [job for job in self._jobs if job.implementation.missing is None]

    def _train(self, job: Job) -> None:
        name = job.implementation.name
        title = f"{job.task.name}: {name} seed {job.seed}"
        tell(f"[{self._jobs.index(job) + 1}/{len(self._jobs)}] {title} ...")
        curve = Curve(job.seed, job.order)
        reason = None
        try:
            launch = Launch(job.implementation, self._request(job))
            with launch:
                self._follow(launch, curve)
            curve.finished = True
            reason = shortfall(curve, job.task.config.total_timesteps)
        except Failed as failure:
            if not self._stopping:
                reason = str(failure).removeprefix(f"{name}: ")
        finally:  # also where an interrupt cut it: what it did until then is kept
            with self._lock:
                if reason is not None:
                    self._fail(job, reason)
                elif curve.env_steps:
                    self.curves.setdefault((job.task.id, name), []).append(curve)
                    tell(f"  {name} seed {job.seed}: {_told(curve, job.task.threshold)}")
        with self._lock:
            self._finished()

    def _follow(self, launch: Launch, curve: Curve) -> None:
        with self._lock:
            self._open.append(launch)
            if self._stopping:
                launch.kill()
        try:
            while (event := launch.next_event()) is not None:
                curve.add(event)
        finally:
            with self._lock:
                self._open.remove(launch)

    def _fail(self, job: Job, reason: str, *, reported: bool = True) -> None:
        name = job.implementation.name
        where = "" if job.implementation.missing is not None else f"seed {job.seed}: "
        entry = {"id": job.task.id, "impl": name, "reason": where + reason}
        self.failures.append(entry if not where else entry | {"seed": job.seed})
        if reported:
            warn(f"{name}: {where}{reason}" if where else reason)

    def _request(self, job: Job) -> dict[str, Any]:
        config = replace(job.task.config, seed=job.seed)
        plan = threads.plan(config, spec_of(config))
        return {
            "env_id": config.env_id,
            "seed": job.seed,
            "device": str(resolve_device(config.device)),
            "config": config.to_dict(),
            # one number of torch threads: trying several would cost wall time, each run anew
            "env_threads": max(1, plan.env_threads // self._at_once),
            "torch_threads": [max(1, plan.torch_threads // self._at_once)],
        }


def shortfall(curve: Curve, total_timesteps: int) -> str | None:
    """Why a run that ended by itself says nothing about learning; None if it does."""
    if curve.total_steps < SHORT * total_timesteps:
        return f"ended after {curve.total_steps:,} of {total_timesteps:,} env steps"
    if curve.final_return() is None:
        return (
            f"finished no game in the last tenth of its {curve.total_steps:,} env steps; "
            "raise --total-timesteps"
        )
    return None


def _told(curve: Curve, threshold: float | None) -> str:
    final = curve.final_return() if curve.finished else None
    reported = "cut short" if final is None else f"final return {final:,.1f}"
    if threshold is not None:
        there = curve.reached(threshold)
        reported += f", {threshold:g} not reached"
        if there is not None:
            at = f"{curve.env_steps[there]:,} env steps, {curve.wall_s[there]:,.1f} s"
            reported = reported.replace("not reached", f"after {at}")
    return f"{reported}; {curve.total_steps:,} in {curve.total_s:,.1f} s"


def tell(text: str) -> None:
    """Progress on standard error: the table goes to standard output."""
    print_err(text)


def warn(text: str) -> None:
    """A run that is left out."""
    tell(f"fastppo: warning: {text}")
