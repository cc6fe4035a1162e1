"""Verdicts of `fastppo compare` on single results: what counts as a value, and what follows."""

from typing import Any

import numpy as np
import pytest

from fastppo.bench.compare import verdicts
from fastppo.bench.compare.verdicts import ComparedRow, side_of
from fastppo.bench.report.data import Entry


def entry(
    samples: list[float], *, better: str = "higher", launches: int = 4, kind: str = "train"
) -> Entry:
    parts = np.array_split(np.array(samples), launches)
    raw = {
        "id": "x",
        "impl": "fastppo",
        "unit": "env_steps/s",
        "better": better,
        "clock": "wall",
        "launches": [{"order": i, "samples": part.tolist()} for i, part in enumerate(parts)],
    }
    return Entry(kind, raw)


def noisy(middle: float, n: int = 12, seed: int = 0) -> list[float]:
    return list(middle * np.random.default_rng(seed).normal(1, 0.02, n))


def judge(a: Entry, b: Entry, tolerance: float = 0.2, controls: Any = None) -> ComparedRow:
    return verdicts.judge(a, b, tolerance, controls)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.6, "REGRESSION"), (1.0, "PASS"), (1.6, "IMPROVED")]
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_verdict_follows_the_interval(factor: float, verdict: str, better: str) -> None:
    after = factor if better == "higher" else 1 / factor

    row = judge(
        entry(noisy(1000), better=better), entry(noisy(1000 * after, seed=1), better=better)
    )

    assert row.ratio is not None
    assert row.ratio.low < factor < row.ratio.high
    assert row.verdict == verdict


def test_noise_wider_than_the_tolerance_settles_nothing() -> None:
    wide = (1000 * np.random.default_rng(3).lognormal(0, 0.3, 8)).tolist()

    assert judge(entry(wide), entry(wide[::-1])).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("launches", [1, 2])
def test_few_launches_show_only_what_is_far_outside(launches: int) -> None:
    """However many rounds they have: rounds of one process are no independent values."""
    ours = entry(noisy(1000, 200), launches=launches)

    def said(factor: float) -> str:
        theirs = entry(noisy(1000 * factor, 200, seed=1), launches=launches)
        return judge(ours, theirs, 0.05).verdict

    assert (said(1.0), said(0.85), said(0.6)) == ("INCONCLUSIVE", "INCONCLUSIVE", "REGRESSION")


def test_rounds_of_a_launch_are_one_value() -> None:
    found = side_of(entry([1.0, 2.0, 30.0, 4.0, 5.0, 60.0], launches=2))

    assert found is not None
    assert np.exp(found.launches) == pytest.approx([2.0, 5.0])


def test_what_has_no_sample_or_no_speed_in_b_was_not_measured() -> None:
    good = entry(noisy(1000))

    assert judge(good, entry([])).verdict == "NOT MEASURED"
    assert judge(good, entry([0.0] * 12)).verdict == "NOT MEASURED"
    assert judge(entry([0.0] * 12), good).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("before", "after", "times"), [(-20.0, -10.0, 1.5), (-10.0, -20.0, 0.0), (10.0, 20.0, 2.0)]
)
def test_a_negative_return_that_grows_is_better(before: float, after: float, times: float) -> None:
    found = verdicts.times_better(np.array([before]), np.array([after]))

    assert found.tolist() == [times]


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, "REGRESSION"), (1.0, "PASS"), (1.6, "IMPROVED")]
)
def test_returns_are_judged_by_seeds_without_a_drift(factor: float, verdict: str) -> None:
    ours = entry(noisy(100), kind="learn", launches=12)
    theirs = entry(noisy(100 * factor, seed=1), kind="learn", launches=12)

    assert judge(ours, theirs, 0.05).verdict == verdict


def test_four_seeds_get_no_interval_and_no_verdict() -> None:
    row = judge(entry(noisy(100, 4), kind="learn"), entry(noisy(50, 4), kind="learn"))

    assert row.verdict == "INCONCLUSIVE"
    assert row.few
    assert row.ratio is not None
    assert np.isnan(row.ratio.low)
