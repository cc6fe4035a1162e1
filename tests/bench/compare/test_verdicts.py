"""Verdicts of `fastppo compare`: intervals of two sets of samples, and what follows from them."""

import numpy as np
import pytest

from fastppo.bench.compare import verdicts as compare_verdicts
from fastppo.bench.report.data import Entry


def entry(samples: list[float], *, better: str = "higher", launches: int = 1) -> Entry:
    parts = np.array_split(np.array(samples), launches)
    raw = {
        "id": "x",
        "impl": "fastppo",
        "unit": "env_steps/s",
        "better": better,
        "clock": "wall",
        "launches": [{"order": i, "samples": part.tolist()} for i, part in enumerate(parts)],
    }
    return Entry("train", raw)


def noisy(middle: float, n: int = 12, seed: int = 0) -> list[float]:
    return list(middle * np.random.default_rng(seed).normal(1, 0.02, n))


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.8, "REGRESSION"), (1.0, "PASS"), (1.25, "IMPROVED")]
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_verdict_follows_the_interval(factor: float, verdict: str, better: str) -> None:
    after = factor if better == "higher" else 1 / factor

    row = compare_verdicts.judge(
        entry(noisy(1000), better=better), entry(noisy(1000 * after, seed=1), better=better), 0.05
    )

    assert row.ratio is not None
    assert row.ratio.low < factor < row.ratio.high
    assert row.verdict == verdict


def test_noise_wider_than_the_tolerance_settles_nothing() -> None:
    wide = (1000 * np.random.default_rng(3).normal(1, 0.3, 8)).tolist()

    assert compare_verdicts.judge(entry(wide), entry(wide[::-1]), 0.05).verdict == "INCONCLUSIVE"


def test_two_samples_are_no_interval() -> None:
    row = compare_verdicts.judge(entry([1.0, 1.1]), entry([0.1, 0.2]), 0.05)

    assert row.verdict == "INCONCLUSIVE"
    assert row.ratio is not None
    assert np.isnan(row.ratio.low)


@pytest.mark.parametrize(
    ("before", "after", "times"), [(-20.0, -10.0, 1.5), (-10.0, -20.0, 0.0), (10.0, 20.0, 2.0)]
)
def test_a_negative_return_that_grows_is_better(before: float, after: float, times: float) -> None:
    found = compare_verdicts.times_better(np.array([before]), np.array([after]), higher=True)

    assert found.tolist() == [times]


def test_a_median_of_zero_settles_nothing() -> None:
    assert (
        compare_verdicts.judge(entry([0.0] * 6), entry([5.0] * 6), 0.05).verdict == "INCONCLUSIVE"
    )


def test_launches_are_the_samples_where_there_are_three() -> None:
    ours, theirs = entry(noisy(1.0), launches=4), entry(noisy(1.0), launches=2)

    assert [len(x) for x in compare_verdicts.independent(ours, ours)] == [4, 4]
    assert [len(x) for x in compare_verdicts.independent(ours, theirs)] == [12, 12]


def test_equal_programs_are_rarely_called_slower() -> None:
    """200 comparisons of one distribution with itself, at no tolerance at all."""
    rng = np.random.default_rng(0)
    draws = rng.lognormal(0, 0.05, (200, 2, 9))
    said = [
        compare_verdicts.judge(entry(a.tolist()), entry(b.tolist()), 0.0).verdict for a, b in draws
    ]

    assert said.count("REGRESSION") + said.count("IMPROVED") <= 0.08 * len(said)
