"""What two sessions can tell: the interval of `fastppo compare`, and its error rates."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastppo import cli
from fastppo.bench.compare import drift, simulate
from fastppo.bench.compare.drift import Side
from fastppo.bench.compare.simulate import CompareCell, Drift

PAGE = Path(__file__).parents[3] / "docs" / "benchmarking.md"
LOGS = st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=8)


def side(logs: list[float]) -> Side:
    return Side(np.array(logs), np.array(0.0))


def cell(between: Drift, launches: int = 4, slowdown: float = 1.0, **options: float) -> CompareCell:
    return simulate.simulate(
        between, launches, slowdown,
        trials=4000, tolerance=0.05, rng=np.random.default_rng(3), **options,
    )  # fmt: skip


@given(LOGS, LOGS, LOGS, LOGS, st.floats(-0.3, 0.3))
def test_a_machine_of_another_speed_changes_nothing(
    a: list[float], b: list[float], ca: list[float], cb: list[float], machine: float
) -> None:
    still = drift.change(side(a), side(b), (side(ca), side(cb)))
    moved = drift.change(
        side(a), side([x + machine for x in b]), (side(ca), side([x + machine for x in cb]))
    )

    assert moved.value == pytest.approx(still.value, abs=1e-9)
    assert moved.low == pytest.approx(still.low, abs=1e-9)


@given(LOGS, LOGS)
def test_no_interval_is_narrower_than_the_drift(a: list[float], b: list[float]) -> None:
    for controls, least in (((side(a), side(b)), drift.DRIFT), (None, drift.ALONE)):
        found = drift.change(side(a), side(b), controls)

        assert found.high - found.value >= 1.959 * least
        assert found.high - found.value == pytest.approx(found.value - found.low)


def test_without_drift_it_is_the_interval_of_welch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "ALONE", 0.0)
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.02, 4), rng.normal(0.1, 0.05, 6)
    found = drift.change(side(a.tolist()), side(b.tolist()), None)

    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("launches", [1, 2])
def test_few_launches_never_pass(launches: int) -> None:
    found = cell(Drift(), launches, noise=0.001)

    assert (found.passed, found.regression) == (0.0, 0.0)


@pytest.mark.parametrize("launches", simulate.LAUNCHES)
@pytest.mark.parametrize("between", simulate.DRIFTS, ids=str)
def test_equal_code_is_seldom_called_slower(between: Drift, launches: int) -> None:
    found = cell(between, launches)

    # four standard errors of 4000 trials above the 2.5% that is promised
    assert found.regression <= 0.025 + 4 * (0.025 / 4000) ** 0.5
    assert found.improved <= 0.025 + 4 * (0.025 / 4000) ** 0.5


@pytest.mark.parametrize("noise", [0.01, 0.06])
@pytest.mark.parametrize("launches", simulate.LAUNCHES)
def test_on_quiet_and_on_noisy_machines(launches: int, noise: float) -> None:
    assert cell(Drift(seen=0.08, unseen=0.05), launches, noise=noise).regression <= 0.025


@pytest.mark.parametrize("launches", [4, 8])
def test_code_exactly_as_slow_as_allowed_is_seldom_called_slower(launches: int) -> None:
    found = cell(Drift(seen=0.05, unseen=0.05), launches, slowdown=1.05)

    assert found.regression <= 0.025 + 4 * (0.025 / 4000) ** 0.5


@pytest.mark.parametrize(("slowdown", "power"), [(1.15, 0.1), (1.2, 0.45), (1.3, 0.8)])
@pytest.mark.parametrize(
    "between", [Drift(), Drift(seen=0.05), Drift(seen=0.08, unseen=0.05)], ids=str
)
def test_slower_code_is_seen(between: Drift, slowdown: float, power: float) -> None:
    found = cell(between, 4, slowdown)

    assert found.regression >= power * (1 - found.void)


def test_a_machine_that_drifts_is_void_and_not_a_regression() -> None:
    """Beyond the tolerance; a wider one lets it be divided out."""
    code = side([-0.08] * 4)
    found = drift.change(side([0.0] * 4), code, (side([0.0] * 4), code))

    assert drift.void(-0.08, 0.05)
    assert not drift.void(-0.08, 0.12)
    # a tolerance of 0 does not ask for a machine that never moves
    assert not drift.void(-0.03, 0.0)
    assert drift.verdicts(found, 0.15) == drift.PASS


def test_equal_code_cannot_pass_below_ten_percent_without_luck() -> None:
    """The interval reaches that far to either side, so a pass takes an estimate above 1."""
    equal = side([0.0, 0.0, 0.0, 0.0])
    found = drift.change(equal, equal, (equal, equal))

    assert drift.verdicts(found, 0.11) == drift.INCONCLUSIVE
    assert drift.verdicts(found, 0.12) == drift.PASS


def test_command_prints_writes_and_repeats_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for name in ("a.md", "b.md"):
        args = ["bench", "compare", "--trials", "20", "--md", str(tmp_path / name)]
        assert cli.main(args) == 0
        told.append(capsys.readouterr().out)

    assert told[0] == told[1]
    assert told[0].endswith((tmp_path / "a.md").read_text())


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (["--trials", "0"], "--trials: 0"),
        (["--tolerance", "nan"], "--tolerance: nan"),
        (["--seed", "-1"], "--seed: -1"),
        (["--md", "/nowhere/at/all.md"], "--md: /nowhere/at"),
    ],
)
def test_a_mistake_is_one_line(
    args: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "compare", *args]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"fastppo: error: {field}")
    assert (told.err.count("\n"), told.out) == (1, "")


@pytest.mark.slow
def test_published_table_is_the_one_that_the_command_prints() -> None:
    cells = list(simulate.table(simulate.Args().trials, 0.05, seed=1))

    assert simulate.markdown(cells) in PAGE.read_text()
    assert all(one.regression <= 0.025 for one in cells if one.slowdown == 1)
