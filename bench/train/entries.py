"""From what was seen of the implementations to the entries of a result file."""

from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

from fastppo.bench import recipes
from fastppo.bench.contract import PHASES, manifest
from fastppo.bench.launch.measure import Measurement, Run
from fastppo.bench.launch.steady import steady_index
from fastppo.bench.results.intervals import Interval, over_launches
from fastppo.tasks import spec_of

HORIZONS = (1_000_000, 10_000_000, 50_000_000)
"""Env steps of a run, start and compilation included, for the amortised rates."""


def entries(
    measurement: Measurement, learning: Callable[[str], str] = lambda _: "not verified"
) -> list[dict[str, Any]]:
    """An entry (`fastppo.result/1`, kind train) of every implementation that was measured.

    Args:
        learning: "verified" or "not verified" for an implementation's name.
    """
    return [
        _entry(measurement, name, learning(name))
        for name, runs in measurement.runs.items()
        if name not in measurement.failures and any(run.slices for run in runs)
    ]


def failures(measurement: Measurement) -> list[dict[str, str]]:
    """Implementations that could not be measured, and why."""
    where = entry_id(measurement)
    return [
        {"id": where, "impl": name, "reason": reason}
        for name, reason in measurement.failures.items()
    ]


def entry_id(measurement: Measurement) -> str:
    """Names the task: train/Pong-v5/8x128."""
    return f"train/{measurement.config.env_id}/{recipes.label(measurement.config)}"


def _entry(measurement: Measurement, name: str, learning: str) -> dict[str, Any]:
    runs = [run for run in measurement.runs[name] if run.slices]
    rate = over_launches([[one.env_steps_per_s for one in run.slices] for run in runs])
    return {
        "id": entry_id(measurement),
        "impl": name,
        "unit": "env_steps/s",
        "better": "higher",
        "clock": "wall",
        "launches": [
            {
                "order": order,
                "samples": [one.env_steps_per_s for one in run.slices],
                "seconds": [one.seconds for one in run.slices],
                "at": [one.at for one in run.slices],
                "rounds": [one.round for one in run.slices],
            }
            for order, run in enumerate(runs)
        ],
        "train": {
            **_asked(measurement, name, runs[0]),
            "env_steps_per_s": asdict(rate),
            "frames_per_s": rate.value * spec_of(measurement.config).frame_skip,
            "ratio": _ratio(measurement, name),
            **_ceilings(measurement, rate),
            "phases": _phases(runs),
            **_costs(runs, rate),
            "threads": {
                "env": runs[0].info.get("env_threads", measurement.request["env_threads"]),
                "torch": runs[0].torch_threads,
                "tried": runs[0].tried,
            },
            "learning": learning,
        },
    }


def _asked(measurement: Measurement, name: str, run: Run) -> dict[str, Any]:
    """What was to be trained, and what was done for it."""
    config, work = measurement.config, run.work
    return {
        "env_id": config.env_id,
        "recipe": recipes.label(config),
        "frame_skip": spec_of(config).frame_skip,
        "seed": config.seed,
        "config": config.to_dict(),
        "work": work
        | {
            "flops_per_update": manifest.flops_per_update(work),
            "gradient_steps_per_env_step": manifest.gradient_steps_per_env_step(work),
        },
        "info": run.info,
        "mismatch": measurement.mismatch[name],
    }


def _ceilings(measurement: Measurement, rate: Interval) -> dict[str, Any]:
    """What limits everybody, and which part of it the rate is."""
    launches = {
        which: [launch for launch in found if launch]
        for which, found in measurement.ceilings.items()
        if any(found)
    }
    limits = {
        which: median(rate for launch in found for rate in launch)
        for which, found in launches.items()
    }
    return {
        "ceilings": limits,
        "ceiling_launches": {which: list(map(median, found)) for which, found in launches.items()},
        "shares": {which: rate.value / limit for which, limit in limits.items()},
    }


def _costs(runs: list[Run], rate: Interval) -> dict[str, Any]:
    """Start, compilation and memory, and when the rate became steady."""
    steady = [_steady(run) for run in runs]
    cold = median(run.cold_start_s for run in runs)
    return {
        "wall": {
            "cold_start_s": cold,
            "compile_s": median(_compile_s(run) for run in runs),
            "cold_total_s": median(run.total_s for run in runs),
        },
        "amortised": {str(steps): steps / (cold + steps / rate.value) for steps in HORIZONS},
        "memory": {
            "process_peak_bytes": max(run.peak_memory_bytes for run in runs),
            "device_peak_bytes": _largest([run.device_memory_bytes for run in runs]),
        },
        "steady": {
            "reached": all(index is not None for index in steady),
            "index": max(index or 0 for index in steady),
        },
    }


def _ratio(measurement: Measurement, name: str) -> dict[str, Any] | None:
    """Rate over the base's in the same round: what slows the machine slows both."""
    base = measurement.base
    if name == base or base in measurement.failures or base not in measurement.runs:
        return None
    slices = (one for run in measurement.runs[base] for one in run.slices)
    theirs = {one.round: one.env_steps_per_s for one in slices}
    launches = [
        [one.env_steps_per_s / theirs[one.round] for one in run.slices if one.round in theirs]
        for run in measurement.runs[name]
    ]
    rounds = sum(map(len, launches))
    return {"base": base, "rounds": rounds, **asdict(over_launches(launches))} if rounds else None


def _phases(runs: list[Run]) -> dict[str, float] | None:
    """Seconds over all slices, and the parent's own wall time for the same updates."""
    slices = [one for run in runs for one in run.slices]
    booked = [one.phases for one in slices if one.phases is not None]
    if len(booked) < len(slices):
        return None
    sums = {phase: sum(one[phase] for one in booked) for phase in PHASES}
    return sums | {"wall": sum(one.seconds for one in slices)}


def _steady(run: Run) -> int | None:
    """Index of the first steady update, judged over all updates that were seen."""
    index = steady_index(run.durations[run.first_measured :])
    return None if index is None else run.first_measured + index


def _compile_s(run: Run) -> float:
    """What its first update took beyond a usual one, and what it says it compiled before that."""
    usual = median(run.durations[run.first_measured :] or run.durations)
    return max(0.0, run.durations[0] - usual) + float(run.info.get("compile_s", 0.0))


def _largest(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
