"""When the gate looks, what it says, and what makes a whole run void."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastppo.bench.gate import rule
from fastppo.bench.gate.signed_rank import middle

PLAN = rule.looks()
RUN = arrays(np.float64, 20, elements=st.floats(-1, 1))


def steady(effect: float, n: int = 20, noise: float = 0.001) -> np.ndarray:
    differences: np.ndarray = np.log1p(effect) + noise * np.linspace(-1, 1, n)
    return differences


def verdict(differences: np.ndarray, tolerance: float = 0.05) -> tuple[str, int]:
    said, pairs = rule.decide(differences, tolerance, PLAN)
    return str(said), int(pairs)


def test_looks_are_those_that_were_published() -> None:
    assert [(k.pairs, k.alpha, k.only_pass) for k in PLAN] == [
        (6, 0.02, True),
        (12, 0.0025, False),
        (20, 0.0025, False),
    ]


@pytest.mark.parametrize("rounds", [12, 13, 20, 21, 40, 100])
def test_looks_share_one_chance_of_a_false_alarm(rounds: int) -> None:
    later = rule.looks(rounds)[1:]

    assert sum(k.alpha for k in later) == pytest.approx(rule.FALSE_ALARM)
    assert [k.last for k in later] == [False] * (len(later) - 1) + [True]
    assert later[-1].pairs == rounds


def test_fewer_rounds_than_can_show_anything_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds: 11"):
        rule.looks(11)


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (0.0, (rule.PASS, 6)),
        (0.04, (rule.PASS, 6)),
        (0.08, (rule.SUSPECT, 12)),
        (-0.08, (rule.IMPROVED, 12)),
        (-0.03, (rule.PASS, 6)),
    ],
)
def test_steady_pairs_are_judged_by_their_effect(effect: float, expected: tuple[str, int]) -> None:
    assert verdict(steady(effect)) == expected


def test_pairs_that_scatter_across_the_tolerance_settle_nothing() -> None:
    noisy = np.tile([-0.3, 0.4], 10)

    assert verdict(noisy) == (rule.INCONCLUSIVE, 12)  # no more pairs would settle it
    said, pairs = rule.decide(noisy, 0.05, rule.looks(patient=True))
    assert (str(said), int(pairs)) == (rule.INCONCLUSIVE, 20)


@given(st.floats(0.5, 5.0), RUN)
def test_six_pairs_never_accuse(effect: float, noise: np.ndarray) -> None:
    assert rule.judge(effect + noise / 10, 0.05, PLAN[0]) == rule.OPEN


@given(RUN, st.floats(0, 1))
def test_a_slower_head_is_never_judged_better(noise: np.ndarray, more: float) -> None:
    order = [rule.IMPROVED, rule.PASS, rule.INCONCLUSIVE, rule.SUSPECT]
    last = PLAN[-1]

    before, after = (str(rule.judge(d, 0.05, last)) for d in (noise, noise + more))

    assert order.index(after) >= order.index(before)


@given(RUN)
def test_many_runs_at_once_are_judged_as_one_by_one(noise: np.ndarray) -> None:
    many = np.stack([noise, noise + 0.2, noise / 100])

    together, pairs = rule.decide(many, 0.05, PLAN)

    assert [(str(v), int(n)) for v, n in zip(together, pairs, strict=True)] == [
        verdict(one) for one in many
    ]


def test_a_suspicion_needs_a_second_run() -> None:
    assert rule.confirm(rule.SUSPECT, rule.SUSPECT) == rule.REGRESSION
    for second in (rule.PASS, rule.IMPROVED, rule.INCONCLUSIVE):
        assert rule.confirm(rule.SUSPECT, second) == rule.FLAKY
    assert rule.confirm(rule.PASS, rule.SUSPECT) == rule.PASS


@given(RUN)
def test_smallest_effect_is_where_suspicion_begins(noise: np.ndarray) -> None:
    """Shift the same noise so that its estimate is the effect, a little more, a little less."""
    last = PLAN[-1]
    seen = np.log1p(rule.detectable(noise, 0.05, last.alpha))
    centred = noise - middle(noise, last.alpha).value

    assert rule.judge(centred + seen + 1e-9, 0.05, last) == rule.SUSPECT
    assert rule.judge(centred + seen - 1e-9, 0.05, last) != rule.SUSPECT


def test_smallest_effect_of_too_few_pairs_is_none() -> None:
    assert rule.detectable(steady(0.0, n=6), 0.05, 0.0025) == np.inf


@pytest.mark.parametrize(("effect", "expected"), [(0.0, False), (0.02, False), (0.04, True)])
def test_controls_move_beyond_half_the_tolerance(effect: float, expected: bool) -> None:
    assert rule.moved([steady(effect)], 0.05) is expected
    assert rule.moved([-steady(effect)], 0.05) is expected


def test_one_odd_control_among_three_voids_nothing() -> None:
    assert not rule.moved([steady(0.0), steady(0.3), steady(0.01)], 0.05)
    assert rule.moved([steady(0.0), steady(0.3), steady(0.06)], 0.05)


def test_void_names_its_reason() -> None:
    fine, off = steady(0.0), steady(0.1)

    assert rule.void([fine, fine], 0.05, measured=24, dropped=6) is None
    assert rule.void([], 0.05, measured=20, dropped=0) is None
    dropped = rule.void([fine], 0.05, measured=24, dropped=7)
    assert dropped is not None
    assert "7 of 24 pairs" in dropped
    control = rule.void([off], 0.05, measured=20, dropped=0)
    assert control is not None
    assert "the controls" in control
