"""`fastppo bench train`: env steps per second of fastppo and other libraries, side by side."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fastppo import signals
from fastppo.bench.launch import implementations
from fastppo.bench.launch.measure import BRIEF, FULL, Effort, Measurement
from fastppo.bench.publish import keep, prepared, publish
from fastppo.bench.recipes import label, workloads
from fastppo.bench.report.data import run_of
from fastppo.bench.report.ranking import too_slow
from fastppo.bench.results import result
from fastppo.bench.train import entries
from fastppo.bench.train.args import Args
from fastppo.errors import UserError

DEFAULT = ("fastppo", "reference", implementations.PEERS)


def run(args: Args) -> int:
    """Measures, writes what was asked for after every task, and prints the table.

    Returns:
        0; 1 if one is slower than --fail-below allows; 3 if one could not be measured.
    """
    limit = args.fail_below
    if limit is not None and not (limit > 0 and math.isfinite(limit)):
        raise UserError(f"--fail-below: {limit} must be a finite number above 0")
    effort = _effort(args)
    chosen = implementations.parse(args.impl or [",".join(DEFAULT)])
    base = implementations.base_of(args.base, chosen, "measured")
    from fastppo.bench.results import parity_records  # takes scipy, which no --help needs

    # the package's own count as any other's: the largest decides
    learned = [*parity_records.shipped(), *(result.read(path) for path in args.parity)]
    args = prepared(args, "train")
    _pin(args.cores)
    recipe_names = args.recipe.split(",") if args.recipe else []
    configs = workloads(
        args.env_ids, recipe_names, seed=args.seed, device=args.device, brief=args.quick
    )

    record = result.new("train", [], **({} if limit is None else {"fail_below": limit}))
    try:
        for config in configs:
            measurement = Measurement(
                config, chosen, effort, base=base, allow_mismatch=args.allow_mismatch
            )
            try:
                measurement.run()
            finally:  # an interrupt keeps what was measured
                with signals.held():
                    _add(record, measurement, learned)
                    keep(record, args)
    finally:
        publish(record, args)
    if args.fail_below is not None and too_slow(run_of(record)):
        return 1
    return 3 if record["failures"] else 0


def _add(
    record: dict[str, Any], measurement: Measurement, learned: Sequence[Mapping[str, Any]]
) -> None:
    from fastppo.bench.results.parity_records import show_learning, studies

    def learning(name: str) -> str:
        found = studies(learned, name, measurement.config)
        task = f"{measurement.config.env_id} {label(measurement.config)}"
        kept = [{"impl": name, "task": task} | study.told() for study in found]
        record.setdefault("studies", []).extend(kept)
        return "verified" if show_learning(found) else "not verified"

    record["results"] += entries.entries(measurement, learning)
    record["failures"] += entries.failures(measurement)


def _effort(args: Args) -> Effort:
    effort = BRIEF if args.quick else FULL
    seconds = effort.seconds if args.seconds is None else args.seconds
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UserError(f"--seconds: {seconds} must be a finite number above 0")
    rounds = effort.rounds if args.rounds is None else args.rounds
    launches = min(effort.launches, rounds) if args.launches is None else args.launches
    for name, value in (("rounds", rounds), ("launches", launches)):
        if value < 1:
            raise UserError(f"--{name}: {value} must be at least 1")
    if launches > rounds:
        raise UserError(f"--launches: {launches} is more than --rounds {rounds}; lower it")
    return Effort(seconds, rounds, launches, effort.warmup_s, effort.tune)


def _pin(text: str | None) -> None:
    """Children inherit the cores, and every thread plan counts them."""
    if text is None:
        return
    have = os.sched_getaffinity(0)
    try:
        cores = {int(part) for part in text.split(",")}
    except ValueError:
        cores = set()
    if not cores or not cores <= have:
        shown = ",".join(map(str, sorted(have)))
        raise UserError(f"--cores: {text!r} cannot be had; this process may use {shown}")
    os.sched_setaffinity(0, cores)
