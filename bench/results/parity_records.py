"""Learning parity, from the runs that a result file holds: what it says of itself is not believed.

A file's own verdict may be by an older rule, or edited; its learning curves are judged anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastppo.bench.results import parity, result
from fastppo.bench.results.parity import Parity, Runs
from fastppo.config import Config

# They say how, where and in whose name a run is done, or how long, but not what is learned.
NOT_LEARNED = (
    "preset", "seed", "total_timesteps", "device", "backend", "engine",
    "env_threads", "torch_threads", "checkpoint_interval", "keep_checkpoints", "max_skipped_steps",
)  # fmt: skip
TRACKING = ("wandb", "tensorboard", "track")
"""Beginnings of the names of fields that only send copies of the metrics somewhere."""

Record = Mapping[str, Any]


def configuration_key(config: Config | Mapping[str, Any]) -> str:
    """Names what is learned: a hash of a config's fields but for NOT_LEARNED and TRACKING.

    Args:
        config: also as a dict, and as that is read back from JSON.
    """
    values = config.to_dict() if isinstance(config, Config) else config
    learned = {
        name: value
        for name, value in values.items()
        if name not in NOT_LEARNED and not name.startswith(TRACKING)
    }
    text = json.dumps(learned, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def runs_of(curves: Sequence[Record], threshold: float | None, crashed: int) -> Runs:
    """The runs of one implementation on one task.

    Args:
        curves: as `Curve.to_dict` makes them and result files keep them. One that was cut short, or
            whose returns at either end are unknown, counts as lost.
        crashed: seeds without a curve.
    """
    kept = [
        one
        for one in curves
        if one.get("finished")
        and one.get("first_return") is not None
        and one.get("final_return") is not None
    ]
    judged = [] if threshold is None else kept
    there = [one["steps_to_threshold"] for one in judged]
    return Runs(
        first=[one["first_return"] for one in kept],
        final=[one["final_return"] for one in kept],
        steps=[
            float(one["total_steps"] if at is None else at)
            for one, at in zip(judged, there, strict=True)
        ],
        reached=[at is not None for at in there],
        lost=crashed + len(curves) - len(kept),
    )


def judged(ours: Runs, theirs: Runs | None, horizon: float) -> Parity:
    """Ours and the base's runs; `theirs` is None where ours are the base's."""
    if theirs is None:
        return parity.judge_base(ours)
    return parity.judge(ours, theirs, horizon)


@dataclass(frozen=True, slots=True)
class JudgedStudy:
    """What a learn record says of one implementation and configuration, judged anew."""

    seeds: int
    parity: Parity
    created: str
    sha: str | None

    @property
    def verdict(self) -> str:
        return self.parity.verdict

    def told(self) -> dict[str, Any]:
        """For a record that relies on it."""
        return {
            "seeds": self.seeds,
            "verdict": self.verdict,
            "reasons": [] if self.verdict == parity.PASSED else self.parity.reasons,
            "created": self.created,
            "sha": self.sha,
        }


def shipped() -> list[Record]:
    """The studies that come with the package (`bench/parity`)."""
    folder = Path(__file__).parent.parent / "parity"
    return [result.read(path) for path in sorted(folder.glob("*.json"))]


def studies(
    records: Iterable[Record], impl: str, config: Config | Mapping[str, Any]
) -> list[JudgedStudy]:
    """What learn records say of an implementation on this configuration, the largest study first.

    Args:
        records: as `result.read` returns them; those of another kind are passed over.
        impl: its name in the tables.
        config: of what is measured.
    """
    key = configuration_key(config)
    found = [
        study
        for record in records
        if record.get("kind") == "learn"
        for entry in record["results"]
        if entry["impl"] == impl and configuration_key(entry["learn"]["config"]) == key
        if (study := _study(record, entry)) is not None
    ]
    return sorted(found, key=lambda study: -study.seeds)


def verified(records: Iterable[Record], impl: str, config: Config | Mapping[str, Any]) -> bool:
    """Whether learn records show that an implementation learns a configuration; as `studies`."""
    return show_learning(studies(records, impl, config))


def show_learning(found: Sequence[JudgedStudy]) -> bool:
    """Whether studies of one implementation and configuration, the largest first, show it.

    The study with the most seeds decides, so that a small one cannot be picked for its luck; and
    one that failed is not outvoted.
    """
    largest = {one.verdict for one in found if one.seeds == found[0].seeds}
    return largest == {parity.PASSED} and all(one.verdict != parity.FAILED for one in found)


def _study(record: Record, entry: Record) -> JudgedStudy | None:
    """One entry judged anew; None where the base is not in the file."""
    base = (record.get("comparison") or {}).get("base")
    horizon = entry["learn"]["config"].get("total_timesteps")
    theirs = _entry(record, entry["id"], base)
    if theirs is None or horizon is None:
        return None
    ours = _runs(record, entry)
    against = None if entry["impl"] == base else _runs(record, theirs)
    found = judged(ours, against, float(horizon))
    return JudgedStudy(ours.seeds, found, str(record["created"]), record["code"]["sha"])


def _entry(record: Record, task: str, impl: str | None) -> Record | None:
    return next(
        (one for one in record["results"] if (one["id"], one["impl"]) == (task, impl)), None
    )


def _runs(record: Record, entry: Record) -> Runs:
    crashed = sum(
        (one["id"], one["impl"]) == (entry["id"], entry["impl"]) for one in record["failures"]
    )
    return runs_of(entry["learn"]["curves"], entry["learn"]["threshold"], crashed)
