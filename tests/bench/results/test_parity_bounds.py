"""Limits in closed form, against scipy, by hand, and by enumeration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastppo.bench.results import parity_bounds as bounds
from fastppo.bench.results.intervals import TAIL, Bounds
from fastppo.bench.results.parity import MIN_SEEDS, SHARE_MARGIN
from fastppo.bench.results.statistics import interquartile_mean


@given(data=st.data(), n=st.integers(1, 60))
def test_limits_of_a_share_are_scipys_exact_ones(data: st.DataObject, n: int) -> None:
    k = data.draw(st.integers(0, n))
    found = bounds.share(k, n)
    exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")

    assert (found.value, found.low, found.high) == pytest.approx((k / n, exact.low, exact.high))


def test_so_many_seeds_without_a_failure_are_the_fewest_that_can_pass() -> None:
    """1 - 0.025 ** (1 / 17) is 0.195, and 0.206 with 16."""
    low = [
        float(bounds.difference(bounds.share(n, n), bounds.share(n, n)).low)
        for n in (MIN_SEEDS - 1, MIN_SEEDS)
    ]

    assert low[0] < -SHARE_MARGIN <= low[1]


@pytest.mark.parametrize("n", [5, 10, 17, 20, 26, 40, 80])
def test_a_share_on_the_margin_passes_in_one_study_of_forty_at_most(n: int) -> None:
    """No simulation: every pair of counts with its probability, for every share of the base."""
    counts = np.arange(n + 1)
    ours, base = np.meshgrid(counts, counts, indexing="ij")
    found = bounds.difference(bounds.share(ours, n), bounds.share(base, n))
    passed = found.low >= -SHARE_MARGIN
    chance = [stats.binom.pmf(counts, n, share / 100) for share in range(101)]
    margin = round(100 * SHARE_MARGIN)
    wrong = [chance[share - margin] @ passed @ chance[share] for share in range(margin, 101)]

    assert max(wrong) <= TAIL


def test_limits_of_a_mean_are_students() -> None:
    steps = np.array([31.0, 28.0, 40.0, 35.0, 99.0])
    reached = np.array([True, True, True, True, False])
    found = bounds.mean_steps(steps, reached)
    low, high = stats.t.interval(0.95, 3, loc=33.5, scale=stats.sem(steps[:4]))

    assert (found.value, found.low, found.high) == pytest.approx((33.5, low, high))


def test_without_a_spread_to_see_nothing_is_bounded() -> None:
    one = bounds.mean_steps([31.0, 99.0], [True, False])

    assert [float(one.value), float(one.low), float(one.high)] == [31.0, -np.inf, np.inf]
    assert bounds.iqm([3.0]).high == np.inf
    none = bounds.restricted_mean([99.0, 99.0], [False, False], 99.0)
    assert none.value == none.high == 99.0
    assert none.low == pytest.approx(99.0 * bounds.share(2, 2).low)


def test_interquartile_limits_are_yuens_by_hand() -> None:
    """Eight values: two are cut at each end, which leaves four and three degrees of freedom."""
    values = np.array([1.0, 2.0, 4.0, 5.0, 7.0, 8.0, 11.0, 30.0])
    held = np.array([4.0, 4.0, 4.0, 5.0, 7.0, 8.0, 8.0, 8.0])
    off = stats.t.ppf(0.975, 3) * np.sqrt(np.square(held - held.mean()).sum() / (4 * 3))
    found = bounds.iqm(values[::-1])

    assert (found.value, found.high - found.value) == pytest.approx((6.0, off))


def test_all_runs_there_and_equal_leave_the_exact_bound_of_unseen_failures() -> None:
    found = bounds.restricted_mean([30.0] * 20, [True] * 20, 300.0)

    assert found.low == found.value == 30.0
    assert found.high == pytest.approx(30.0 + (1 - TAIL ** (1 / 20)) * 270.0)


runs = st.lists(st.tuples(st.floats(1, 100), st.booleans()), min_size=1, max_size=30)


@given(told=runs, horizon=st.floats(100, 1000))
def test_the_mean_counts_failures_with_the_horizon_and_is_within_its_limits(
    told: list[tuple[float, bool]], horizon: float
) -> None:
    steps = np.array([at if there else horizon for at, there in told])
    reached = np.array([there for _, there in told])
    found = bounds.restricted_mean(steps, reached, horizon)

    assert found.value == pytest.approx(steps.mean())
    assert 0 <= found.low <= found.value * (1 + 1e-12)
    assert found.value <= found.high * (1 + 1e-12) <= horizon * (1 + 1e-9)


bounded = st.tuples(st.floats(0.1, 10), st.just(0.0) | st.floats(0.01, 1), st.floats(0, 3)).map(
    lambda told: Bounds(*map(np.asarray, (told[0], told[0] * told[1], told[0] * (1 + told[2]))))
)


@given(ours=bounded, base=bounded)
def test_a_limit_of_a_ratio_is_where_the_difference_has_its_limit_at_zero(
    ours: Bounds, base: Bounds
) -> None:
    found = bounds.ratio(ours, base)
    assert found.low <= found.value * (1 + 1e-9)
    assert found.value <= found.high * (1 + 1e-9)
    for end, factor in (("low", found.low), ("high", found.high)):
        if 0 < factor < 1e6:
            times = Bounds(factor * base.value, factor * base.low, factor * base.high)
            left = getattr(bounds.difference(ours, times), end)
            assert left == pytest.approx(0, abs=1e-6 * float(ours.high + times.high))


def test_many_studies_at_once_are_those_studies_one_by_one() -> None:
    rng = np.random.default_rng(4)
    steps, reached = rng.uniform(10, 90, (50, 7)), rng.random((50, 7)) < 0.7
    together = bounds.restricted_mean(steps, reached, 100.0)
    trimmed = bounds.iqm(steps)

    for i in range(50):
        alone = bounds.restricted_mean(steps[i], reached[i], 100.0)
        assert (together.low[i], together.high[i]) == (alone.low, alone.high)
        assert trimmed.low[i] == bounds.iqm(steps[i]).low
        assert trimmed.value[i] == interquartile_mean(steps[i])
