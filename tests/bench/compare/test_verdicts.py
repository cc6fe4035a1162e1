"""Verdicts of `fastppo compare`: intervals of two sets of samples, and what follows from them."""

from pathlib import Path

import numpy as np
import pytest

from fastppo.bench.compare import simulate
from fastppo.bench.compare import verdicts as compare_verdicts
from fastppo.bench.report.data import Entry

PAGE = Path(__file__).parents[3] / "docs" / "benchmarking.md"


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
    ("factor", "verdict"), [(0.7, "REGRESSION"), (1.0, "PASS"), (1.45, "IMPROVED")]
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_verdict_follows_the_interval(factor: float, verdict: str, better: str) -> None:
    after = factor if better == "higher" else 1 / factor

    row = compare_verdicts.judge(
        entry(noisy(1000), better=better), entry(noisy(1000 * after, seed=1), better=better), 0.15
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


def test_launches_decide_where_there_are_three() -> None:
    """Twelve rounds of one launch that happened to be fast are one fast launch."""
    rng = np.random.default_rng(0)
    rounds = rng.normal(1.0, 0.001, (4, 12))
    moved = (rounds * np.array([[0.8], [1.2], [0.9], [1.1]])).ravel().tolist()
    steady = rounds.ravel().tolist()

    wide = compare_verdicts.judge(entry(steady, launches=4), entry(moved, launches=4), 0.05).ratio
    close = compare_verdicts.judge(entry(steady, launches=4), entry(steady, launches=4), 0.05).ratio

    assert wide is not None
    assert close is not None
    assert wide.high / wide.low > 1.7
    assert 1.2 < close.high / close.low < 1.25  # what two sessions may drift apart


def test_the_machine_is_divided_out() -> None:
    a, b = entry(noisy(1000)), entry(noisy(800, seed=1))

    assert compare_verdicts.judge(a, b, 0.05).verdict == "REGRESSION"
    row = compare_verdicts.judge(a, b, 0.05, machine=0.8)
    assert row.ratio is not None
    assert row.ratio.value == pytest.approx(1.0, abs=0.03)
    assert row.verdict == "INCONCLUSIVE"


def test_two_sessions_cannot_pass_at_a_small_tolerance_nor_see_a_small_slow_down() -> None:
    same = entry([1000.0] * 12, launches=4)
    slower = entry([920.0] * 12, launches=4)

    assert compare_verdicts.judge(same, same, 0.05).verdict == "INCONCLUSIVE"
    assert compare_verdicts.judge(same, same, 0.12).verdict == "PASS"
    assert compare_verdicts.judge(same, slower, 0.0).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("drift", [0.0, 0.05, 0.08])
@pytest.mark.parametrize(("rounds", "launches"), simulate.PLANS)
def test_the_verdict_is_wrong_as_rarely_as_the_page_says(
    drift: float, rounds: int, launches: int
) -> None:
    same = simulate.simulate(rounds, launches, drift, 0.0, 400)
    slower = simulate.simulate(rounds, launches, drift, 0.3, 400)

    assert same.regression <= 0.05
    assert same.improved <= 0.05
    assert slower.regression >= 0.8
    assert slower.passed <= 0.01


@pytest.mark.slow
def test_the_page_holds_what_the_simulation_says() -> None:
    table = simulate.markdown(list(simulate.cells(simulate.STUDIES)))

    assert table in PAGE.read_text()


def test_equal_programs_are_rarely_called_slower() -> None:
    """200 comparisons of one distribution with itself, at no tolerance at all."""
    rng = np.random.default_rng(0)
    draws = rng.lognormal(0, 0.05, (200, 2, 9))
    said = [
        compare_verdicts.judge(entry(a.tolist()), entry(b.tolist()), 0.0).verdict for a, b in draws
    ]

    assert said.count("REGRESSION") + said.count("IMPROVED") <= 0.08 * len(said)
