"""Intervals over rounds and launches: what they promise, and that they keep it."""

import math
from pathlib import Path

import pytest

from fastppo.bench.results import coverage
from fastppo.bench.results.intervals import (
    COVERS,
    ONE_LAUNCH,
    heading,
    median_interval,
    over_launches,
)

PAGE = Path(__file__).parents[3] / "docs" / "benchmarking.md"


@pytest.mark.parametrize(
    ("rounds", "launches", "label"),
    [
        (1, 1, "range of 1 round"),
        (3, 1, "range of 3 rounds"),
        (5, 5, "range of 5 rounds"),
        (6, 1, ONE_LAUNCH),
        (12, 2, "range of 12 rounds"),
        (6, 3, COVERS),
        (8, 4, COVERS),
    ],
)
def test_only_three_launches_and_six_rounds_promise_anything(
    rounds: int, launches: int, label: str
) -> None:
    values = [[1.0 + 0.01 * i for i in range(first, rounds, launches)] for first in range(launches)]

    found = over_launches(values)

    assert found.label == label
    if label.startswith("range"):
        assert found.low == 1.0
        assert found.high == pytest.approx(0.99 + 0.01 * rounds)


def test_by_hand() -> None:
    """Launches at e^0, e^0.1, e^0.2: mean 0.1, deviation 0.1, t(2) = 4.3027."""
    found = over_launches([[math.exp(x), math.exp(x + d), math.exp(x - d)] for x, d in
                           ((0.0, 0.5), (0.1, 0.2), (0.2, 0.0))])  # fmt: skip

    reach = 4.30265 * 0.1 / math.sqrt(3)
    assert math.log(found.value) == pytest.approx(0.1)
    assert math.log(found.low) == pytest.approx(0.1 - reach, abs=1e-5)
    assert math.log(found.high) == pytest.approx(0.1 + reach, abs=1e-5)


@pytest.mark.parametrize("values", [[], [[]], [[1.0, 0.0]], [[1.0], [-1.0]]])
def test_what_has_no_logarithm_is_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        over_launches(values)


@pytest.mark.parametrize("tail", coverage.TAILS)
@pytest.mark.parametrize("spread", coverage.SPREADS)
@pytest.mark.parametrize(("rounds", "launches"), [(6, 3), (8, 4), (12, 4)])
def test_what_says_95_percent_covers(rounds: int, launches: int, spread: float, tail: str) -> None:
    """600 studies of a true 95% fall below 92% once in 1000 times."""
    cell = coverage.simulate(rounds, launches, spread, tail, 600)

    assert cell.label == COVERS
    assert cell.covered >= 0.92


def test_rounds_alone_would_not_cover_launches_that_differ() -> None:
    """Why two launches print a range, and one says that it speaks for itself alone."""
    cell = coverage.simulate(6, 1, 2.0, "normal", 600)

    assert cell.covered < 0.6
    assert cell.label == ONE_LAUNCH
    assert median_interval([1.0] * 12, launches=2).label == "range of 12 rounds"


def test_a_column_is_named_after_what_it_holds() -> None:
    assert heading([]) == COVERS
    assert heading([COVERS, COVERS]) == COVERS
    assert heading(["range of 3 rounds"] * 2) == "range of 3 rounds"
    assert heading(["range of 3 rounds", "range of 4 rounds"]) == "range"
    assert heading([COVERS, "range of 3 rounds"]) == "interval or range"


@pytest.mark.slow
def test_the_page_holds_what_the_simulation_says() -> None:
    found = list(coverage.cells(coverage.Args().trials))

    assert coverage.lowest(found) >= 0.93
    assert coverage.markdown(found) in PAGE.read_text()
