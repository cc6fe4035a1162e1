"""The estimate and its bounds against scipy, against brute force, and by how often they cover."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastppo.bench.gate.signed_rank import critical, middle

ALPHAS = st.floats(1e-4, 0.4)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 12])
@pytest.mark.parametrize("alpha", [0.0025, 0.005, 0.02, 0.1])
def test_critical_value_is_that_of_every_sign_pattern(n: int, alpha: float) -> None:
    signs = np.array(list(itertools.product([0, 1], repeat=n)))
    sums = signs @ np.arange(1, n + 1)
    allowed = [k for k in range(n * (n + 1) // 2 + 1) if (sums <= k).mean() <= alpha]

    assert critical(n, alpha) == (max(allowed) if allowed else -1)


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=20, unique_by=abs), ALPHAS, st.floats(-1, 1))
def test_a_bound_rejects_what_scipys_exact_test_rejects(
    values: list[float], alpha: float, null: float
) -> None:
    d = np.array(values) - null
    if (d == 0).any() or np.unique(np.abs(d)).size < d.size:
        return  # scipy's exact distribution is for neither zeros nor ties

    above = stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    below = stats.wilcoxon(d, alternative="less", method="exact").pvalue
    found = middle(d, alpha)

    assert (found.low > 0) == (above <= alpha)
    assert (found.high < 0) == (below <= alpha)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=15))
def test_estimate_is_the_median_of_all_averages_of_two(values: list[float]) -> None:
    pairs = itertools.combinations_with_replacement(values, 2)

    assert middle(values, 0.1).value == pytest.approx(np.median([(a + b) / 2 for a, b in pairs]))


def test_hand_worked_example() -> None:
    found = middle([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 1 / 64)

    # of six positive differences the chance is 1 / 64: the bounds are the least and the largest
    assert [found.value, found.low, found.high] == [8.5, 1.0, 32.0]


def test_too_few_differences_bound_nothing() -> None:
    found = middle([0.1] * 8, 0.0025)

    assert [found.low, found.high] == [-np.inf, np.inf]
    assert found.value == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [np.inf]])
def test_nothing_and_no_number_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="differences"):
        middle(bad, 0.1)


@pytest.mark.parametrize(("n", "alpha"), [(6, 0.02), (12, 0.05), (20, 0.0025), (20, 0.05)])
@pytest.mark.parametrize("noise", ["normal", "student", "uniform"])
def test_each_bound_is_wrong_as_seldom_as_it_says(n: int, alpha: float, noise: str) -> None:
    rng, trials = np.random.default_rng(3), 20_000
    uniform = rng.random((trials, n))
    quantile = {"normal": stats.norm.ppf, "student": stats.t(2).ppf, "uniform": lambda u: u - 0.5}
    found = middle(quantile[noise](uniform) + 5.0, alpha)

    slack = 4 * (alpha / trials) ** 0.5
    assert (found.low > 5.0).mean() <= alpha + slack
    assert (found.high < 5.0).mean() <= alpha + slack
    # and it wastes little: the exact level of the largest k that alpha allows
    assert (found.low > 5.0).mean() >= alpha / 2 - slack
