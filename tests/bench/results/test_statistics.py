"""Every formula against scipy, hand-worked cases or brute force; how often intervals cover."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastppo.bench.results import statistics
from fastppo.bench.results.intervals import COVERS
from fastppo.bench.results.statistics import (
    bootstrap,
    fraction_above,
    improvement,
    interquartile_mean,
    interval,
    mean_improvement,
    percentiles,
    pooled_iqm,
    profile,
)
from fastppo.bench.results.survival import (
    from_first_update,
    median_interval_of,
    median_time,
    survival,
    to_threshold,
)

# multiples of 1/4: sums and products of a few are exact, and there are ties
SCORES = st.lists(st.integers(-4000, 4000).map(lambda n: n / 4), min_size=1, max_size=12)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_iqm_of_eight_runs_by_hand() -> None:
    """Two are cut at each end; (3 + 4 + 5 + 60) / 4 = 18."""
    assert interquartile_mean([1000, 1, 3, -70, 5, 4, 60, 80]) == 18.0


def test_iqm_of_no_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        interquartile_mean([])


@given(SCORES)
def test_iqm_is_scipys_trimmed_mean(scores: list[float]) -> None:
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25))


@given(SCORES, st.integers(-8, 8), st.sampled_from([-2.0, 0.5, 4.0]), st.randoms())
def test_iqm_moves_and_scales_with_the_scores_and_stays_among_them(
    scores: list[float], shift: int, scale: float, random: Any
) -> None:
    plain = interquartile_mean(scores)
    shuffled = random.sample(scores, len(scores))

    assert interquartile_mean(shuffled) == plain
    assert interquartile_mean(np.array(scores) * scale + shift) == pytest.approx(
        plain * scale + shift
    )
    assert min(scores) - 1e-9 <= plain <= max(scores) + 1e-9


def test_improvement_by_hand() -> None:
    """3 beats 1 and ties with 3, 2 beats 1: (1 + 1/2 + 1) / 4."""
    assert improvement([3, 2], [1, 3]) == 0.625


@given(SCORES, SCORES)
def test_improvement_is_mann_whitneys_u_over_the_pairs(x: list[float], y: list[float]) -> None:
    u = stats.mannwhitneyu(x, y, alternative="greater").statistic

    assert improvement(x, y) == pytest.approx(u / (len(x) * len(y)))
    assert improvement(x, y) + improvement(y, x) == pytest.approx(1.0)
    assert improvement(np.array(x) * 3 + 7, np.array(y) * 3 + 7) == improvement(x, y)


def test_improvement_averages_over_tasks_however_many_runs_they_have() -> None:
    """Task one: 1 of 1 pairs. Task two: 0 of 6 pairs. Pooled it would be 1/7 or less."""
    found = interval(mean_improvement, [[2.0], [0.0, 0.0]], [[1.0], [5.0, 5.0, 5.0]], rng=rng())

    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_profile_by_hand() -> None:
    """A score at tau is not above it; tasks count the same."""
    assert fraction_above([1, 2, 2, 3], [0, 1, 2, 3]).tolist() == [1.0, 0.75, 0.25, 0.0]

    found = profile([[0.0, 1.0], [1.0]], [0.5], rng=rng(), num_resamples=200)

    assert found.fractions.tolist() == [0.75]
    assert found.low <= 0.75 <= found.high


@given(st.lists(SCORES, min_size=1, max_size=3))
def test_profiles_fall_from_one_to_zero_within_their_band(scores: list[list[float]]) -> None:
    taus = np.linspace(-1001, 1001, 9)
    found = profile(scores, taus, rng=rng(), num_resamples=50)

    assert found.fractions[0] == 1.0
    assert found.fractions[-1] == 0.0
    for curve in (found.fractions, found.low, found.high):
        assert np.all(np.diff(curve) <= 0)
    assert np.all(found.low <= found.high)


def test_survival_by_hand() -> None:
    """Five runs. Two of five arrive at 10: 3/5. One is cut at 15. One of two at 20: 3/10.

    The last is never there, so the curve stays at 3/10; half have arrived at 20.
    """
    times, reached = [20, 10, 30, 15, 10], [True, True, False, False, True]
    curve = survival(times, reached)

    assert curve.times.tolist() == [0, 10, 20]
    assert curve.fractions == pytest.approx([1, 0.6, 0.3])
    assert median_time(times, reached) == 20.0


def test_runs_that_never_arrive_are_kept() -> None:
    """Two arrive at 10, three never: dropping them would say 10 on average, and half at 10."""
    times, reached = [10, 10, 100, 100, 100], [True, True, False, False, False]

    assert median_time(times, reached) is None
    assert survival([100.0], [False]).fractions.tolist() == [1.0]


def test_times_without_a_run_are_refused() -> None:
    with pytest.raises(ValueError, match="with a run"):
        survival([], [])
    with pytest.raises(ValueError, match="must be equal"):
        median_interval_of([1.0, 2.0], [True])


def exact_curve(times: list[int], reached: list[bool]) -> list[tuple[int, Fraction]]:
    """Times of arrival, and what is left from then on, as fractions."""
    left, curve = Fraction(1), []
    for at in sorted({time for time, there in zip(times, reached, strict=True) if there}):
        watched = sum(time >= at for time in times)
        arrived = sum(t == at and r for t, r in zip(times, reached, strict=True))
        left *= Fraction(watched - arrived, watched)
        curve.append((at, left))
    return curve


@pytest.mark.parametrize("n", range(2, 61))
def test_the_median_time_of_n_runs_is_exact(n: int) -> None:
    """Issue 10, 2: products of rounded fractions miss the run at which exactly half is left."""
    assert median_time(range(1, n + 1), [True] * n) == (n + 1) // 2

    draw = rng(n)
    for censored in (0.0, 0.1, 0.3, 0.5):
        times = draw.integers(1, n + 1, n).tolist()
        reached = (draw.random(n) >= censored).tolist()
        curve = exact_curve(times, reached)
        middle = next((at for at, left in curve if left <= Fraction(1, 2)), None)

        assert median_time(times, reached) == middle
        assert survival(times, reached).fractions[1:].tolist() == [float(x) for _, x in curve]
        found = median_interval_of(times, reached)
        assert found.low <= found.value <= found.high


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=15))
def test_survival_is_scipys(runs: list[tuple[int, bool]]) -> None:
    there = [time for time, reached in runs if reached]
    cut = [time for time, reached in runs if not reached]
    times, reached = [time for time, _ in runs], [flag for _, flag in runs]
    oracle = stats.ecdf(stats.CensoredData(uncensored=there, right=cut)).sf
    curve = survival(times, reached)
    at = np.searchsorted(curve.times, np.arange(10), side="right") - 1

    assert curve.fractions[at] == pytest.approx(oracle.evaluate(np.arange(10)))


def test_the_interval_of_a_median_time_by_hand() -> None:
    """Of ten runs the second from either end bounds the median: 1 - 2 * 11 / 1024 is 97.9%."""
    times = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    everybody = median_interval_of(times, [True] * 10)
    # the last two never get there, and were watched until 100
    most = median_interval_of([*times[:8], 100, 100], [True] * 8 + [False] * 2)
    # one was cut off at 5: it may have been there at 6, or never
    cut = median_interval_of([5, *times[1:]], [False] + [True] * 9)
    half_never = median_interval_of([*times[:4], *[100] * 6], [True] * 4 + [False] * 6)

    assert (everybody.low, everybody.value, everybody.high) == (20, 50, 90)
    assert everybody.label == COVERS
    assert (most.low, most.value, most.high) == (20, 50, math.inf)
    assert (cut.low, cut.high) == (20, 100)
    assert (half_never.low, half_never.value, half_never.high) == (20, math.inf, math.inf)


def test_five_seeds_give_the_range_of_their_times_and_nothing_more() -> None:
    found = median_interval_of([1, 2, 3, 4, 5], [True] * 5)

    assert (found.low, found.value, found.high, found.label) == (1, 3, 5, "range of 5 seeds")


def test_the_interval_of_a_median_time_covers_it() -> None:
    """Exponential times with a median of log 2, watched until 1.5: 22% never get there."""
    draw, covered = rng(5), 0
    for _ in range(2000):
        times = draw.exponential(1.0, 20)
        found = median_interval_of(np.minimum(times, 1.5), times < 1.5)
        covered += found.low <= math.log(2) <= found.high

    # at least 95.9% by the binomial, less three standard errors
    assert covered / 2000 > 0.945


def test_a_run_that_never_got_there_counts_with_the_whole_of_it() -> None:
    def curve(at: int | None) -> dict[str, Any]:
        return {
            "steps_to_threshold": at, "seconds_to_threshold": at and at / 10,
            "total_steps": 100, "total_s": 10.0,
        }  # fmt: skip

    curves = [curve(at) for at in (10, 20, None)]

    assert (steps := to_threshold(curves, "steps")) is not None
    assert (steps.low, steps.value, steps.high) == (10, 20, math.inf)
    assert (seconds := to_threshold(curves, "seconds")) is not None
    assert seconds.value == 2.0
    assert to_threshold([], "steps") is None


def test_the_published_interval_by_enumerating_every_resample() -> None:
    """Two tasks of two and three runs have 4 * 27 resamples; percentiles of all of them."""
    tasks = [[0.0, 8.0], [1.0, 2.0, 40.0]]
    every = [
        interquartile_mean([*first, *second])
        for first in itertools.product(tasks[0], repeat=2)
        for second in itertools.product(tasks[1], repeat=3)
    ]
    found = interval(pooled_iqm, tasks, rng=rng(), num_resamples=40_000, expand=False)
    resampled = bootstrap(pooled_iqm, tasks, rng=rng(), num_resamples=40_000)

    assert found.value == pytest.approx((1 + 2 + 8) / 3)
    assert (found.low, found.high) == pytest.approx(
        np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    )
    # not only the ends: the whole distribution, and so never a run of the other task
    for value in np.unique(np.round(every, 9)):
        share = np.mean(np.isclose(every, value))
        assert np.mean(np.isclose(resampled, value)) == pytest.approx(share, abs=0.02)


def test_the_expanded_interval_by_hand() -> None:
    """Five runs: t with 4 degrees is -2.776 at 2.5%, times sqrt(5/4) is -3.104: 0.0955%."""
    resampled = np.linspace(0.0, 1.0, 100_001)
    low, high = percentiles(resampled, [[0.0] * 5])

    assert low == pytest.approx(0.000955, abs=2e-6)
    assert high == pytest.approx(1 - 0.000955, abs=2e-6)
    # two groups of two tasks of five: 16 degrees, the same factor
    tail = stats.norm.cdf(np.sqrt(5 / 4) * stats.t.ppf(0.025, 16))
    groups = [[[0.0] * 5] * 2] * 2
    assert percentiles(resampled, *groups)[0] == pytest.approx(tail, abs=2e-6)


def test_two_runs_get_their_whole_range() -> None:
    found = interval(pooled_iqm, [[1.0, 5.0]], rng=rng())

    assert (found.value, found.low, found.high) == (3.0, 1.0, 5.0)


@pytest.mark.parametrize(("num_runs", "num_tasks", "least"), [(5, 1, 0.90), (10, 1, 0.93),
                                                              (5, 5, 0.92)])  # fmt: skip
def test_intervals_cover_the_true_value_about_as_often_as_they_say(
    num_runs: int, num_tasks: int, least: float
) -> None:
    draw = rng(5)
    covered = 0
    for _ in range(400):
        scores = list(draw.normal(100.0, 15.0, size=(num_tasks, num_runs)))
        found = interval(pooled_iqm, scores, rng=draw, num_resamples=1000)
        covered += found.low <= 100.0 <= found.high

    assert least < covered / 400 < 1.0


def test_the_interval_of_an_improvement_covers_one_half_between_equals() -> None:
    draw = rng(6)
    covered = 0
    for _ in range(300):
        x, y = draw.normal(size=(2, 8))
        found = interval(mean_improvement, [x], [y], rng=draw, num_resamples=500)
        covered += found.low <= 0.5 <= found.high

    assert covered / 300 > 0.93


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    scores = [rng(1).normal(size=7), rng(2).normal(size=5)]
    first, again, other = (
        bootstrap(pooled_iqm, scores, rng=rng(seed), num_resamples=500) for seed in (3, 3, 4)
    )

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_numpys_global_generator_is_neither_used_nor_moved() -> None:
    scores = [[1.0, 2.0, 3.0]]
    np.random.seed(0)  # noqa: NPY002
    before = str(np.random.get_state())  # noqa: NPY002
    first = bootstrap(pooled_iqm, scores, rng=rng(), num_resamples=50)
    after = str(np.random.get_state())  # noqa: NPY002
    np.random.seed(99)  # noqa: NPY002
    second = bootstrap(pooled_iqm, scores, rng=rng(), num_resamples=50)

    assert before == after
    assert first.tobytes() == second.tobytes()


def test_memory_stays_bounded_whatever_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of resamples, and none lost at the seams."""
    monkeypatch.setattr(statistics, "CHUNK_BYTES", 8 * 10 * 7)
    sizes: list[int] = []

    def statistic(tasks: list[Any]) -> Any:
        sizes.append(len(tasks[0]))
        return pooled_iqm(tasks)

    found = bootstrap(statistic, [np.arange(10.0)], rng=rng(), num_resamples=100)

    assert found.shape == (100,)
    assert max(sizes) == 7
    assert sum(sizes) == 100


def test_from_the_first_update_leaves_the_start_out() -> None:
    """By hand: two runs that took 3 s and 5 s to their first update."""
    curves: list[dict[str, Any]] = [
        {"wall_s": [3.0, 4.0, 6.0], "seconds_to_threshold": 4.0, "total_s": 6.0},
        {"wall_s": [5.0, 9.0], "seconds_to_threshold": None, "total_s": 9.0},
    ]

    first, second = from_first_update(curves)

    assert (first["seconds_to_threshold"], first["total_s"]) == (1.0, 3.0)
    assert (second["seconds_to_threshold"], second["total_s"]) == (None, 4.0)
    assert curves[0]["total_s"] == 6.0
    found = to_threshold([first, first], "seconds")
    assert found is not None
    assert found.value == 1.0
