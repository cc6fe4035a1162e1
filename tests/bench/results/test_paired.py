"""Medians of pairs and their intervals, and the order in which slices are taken."""

import random

import pytest

from fastppo.bench.results.intervals import median_interval
from fastppo.bench.results.paired import interleave, speedup


def test_interval_of_ten_values_by_hand() -> None:
    """P(Bin(10, 1/2) <= 1) = 11/1024, twice that is 2.1% < 5%; <= 2 would be 10.9%.

    So the second smallest and second largest bound it, and cover 97.9%.
    """
    found = median_interval([10, 1, 9, 2, 8, 3, 7, 4, 6, 5])

    assert (found.value, found.low, found.high) == (5.5, 2, 9)


def test_interval_of_few_values_is_their_range() -> None:
    assert median_interval([3.0]).high == 3.0
    assert (median_interval([1, 2, 3, 4, 5]).low, median_interval([1, 2, 3, 4, 5]).high) == (1, 5)
    with pytest.raises(ValueError, match="at least one"):
        median_interval([])


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    draw = random.Random(0)
    covered = 0
    for _ in range(400):
        found = median_interval([draw.lognormvariate(0.0, 1.0) for _ in range(21)])
        covered += found.low <= 1.0 <= found.high

    assert covered / 400 > 0.93


def test_slices_take_turns_in_changing_order_and_stay_paired() -> None:
    calls: list[str] = []

    def measure(name: str, seconds: float) -> float:
        calls.append(name)
        # a machine that slows down: both slices of a round see the same factor
        return seconds * (1 + len(calls) // 2 * 2 if len(calls) % 2 else len(calls) - 1)

    samples = interleave(
        {"ours": lambda: measure("ours", 1.0), "theirs": lambda: measure("theirs", 3.0)}, 12
    )

    rounds = [calls[i : i + 2] for i in range(0, len(calls), 2)]
    assert all(sorted(pair) == ["ours", "theirs"] for pair in rounds)
    assert len({tuple(pair) for pair in rounds}) == 2
    assert speedup(samples, "ours", over="theirs").value == pytest.approx(3.0)
