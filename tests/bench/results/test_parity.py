"""Does it learn as well as the base: who passes, who fails, and where nobody can tell."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastppo.bench.results.parity import MIN_SEEDS, SHARE_MARGIN, Parity, Runs, judge, judge_base

SEEDS = 20


def runs(
    final: list[float], steps: list[float] | float = 30e3, lost: int = 0, repeat: int = 4
) -> Runs:
    """Runs from 20 to `final`; a negative number of steps was not enough to get there.

    Args:
        repeat: of each run, a little apart.
    """
    final = [one + i / 10 for i in range(repeat) for one in final]
    listed = steps if isinstance(steps, list) else [steps + 100.0 * i for i in range(len(final))]
    return Runs(
        first=[20.0] * len(final),
        final=final,
        steps=[abs(one) for one in listed],
        reached=[one > 0 for one in listed],
        lost=lost,
    )


GOOD = [470.0, 480.0, 485.0, 490.0, 495.0]
LOW = [300.0, 310.0, 320.0, 330.0, 340.0]


def verdict(ours: Runs, base: Runs, horizon: float = 100e3) -> Parity:
    return judge(ours, base, horizon)


def test_an_equal_learner_passes() -> None:
    found = verdict(runs([473.0, 478.0, 486.0, 489.0, 494.0], 31e3), runs(GOOD))

    assert found.verdict == "passed", found.reasons
    assert not found.too_fast


@pytest.mark.parametrize("repeat", [1, 2])
def test_five_or_ten_seeds_cannot_show_that_a_learner_is_equal(repeat: int) -> None:
    found = verdict(runs(GOOD, repeat=repeat), runs(GOOD, repeat=repeat))

    assert found.verdict == "cannot tell"
    assert "give --seeds 20" in found.reasons[0]


def test_a_learner_with_lower_returns_fails() -> None:
    found = verdict(runs(LOW), runs(GOOD))

    assert found.verdict == found.final_return.verdict == "failed"


def test_a_learner_that_takes_twice_the_steps_fails() -> None:
    """Though the base may have failures that were not seen, which would make it slower."""
    found = verdict(runs(GOOD, 61e3), runs(GOOD))

    assert found.verdict == found.steps_to_threshold.verdict == "failed"
    assert found.success_share.verdict == found.final_return.verdict == "passed"
    # by hand: 61.0 to 62.9 thousand over 30.0 to 31.9 thousand
    assert found.steps_to_threshold.estimate is not None
    assert found.steps_to_threshold.estimate.value == pytest.approx(61.95 / 30.95)


@pytest.mark.parametrize("repeat", [1, 4])
def test_a_learner_that_never_gets_there_fails(repeat: int) -> None:
    ours = runs(GOOD, [-99e3] * 5 * repeat, repeat=repeat)

    found = verdict(ours, runs(GOOD, repeat=repeat))

    assert found.verdict == found.success_share.verdict == "failed"


def test_one_failure_in_twenty_seeds_leaves_the_share_open() -> None:
    """The interquartile mean drops it, and the mean hardly moves."""
    ours = runs([*GOOD * 3, *GOOD[1:], 25.0], [30e3] * 19 + [-100e3], repeat=1)

    found = verdict(ours, runs(GOOD))

    assert found.final_return.verdict == "passed"
    assert found.verdict == found.success_share.verdict == "cannot tell"
    assert "19 of 20 seeds, the base's 20 of 20: -5 (" in found.success_share.reason


def test_a_seed_that_gets_there_and_forgets_is_a_failure() -> None:
    """Four seeds of twenty are within the quarter that the interquartile mean drops."""
    ours = runs([*GOOD * 3, 480.0, *[30.0] * 4], 30e3, repeat=1)

    found = verdict(ours, runs(GOOD))

    assert found.final_return.verdict == "passed"
    assert found.verdict == found.success_share.verdict == "cannot tell"
    assert "16 of 20" in found.success_share.reason


def test_too_few_seeds_cannot_tell_however_bad_or_good() -> None:
    for final in ([480.0, 481.0], [30.0, 31.0]):
        found = verdict(runs(final, repeat=2), runs(GOOD))

        assert found.verdict == "cannot tell"
        assert "4 seeds cannot pass" in found.reasons[0]


def test_a_wide_interval_cannot_tell() -> None:
    found = verdict(runs([350.0, 380.0, 480.0, 490.0, 495.0]), runs(GOOD))

    assert found.verdict == found.final_return.verdict == "cannot tell"


def test_lost_seeds_do_not_pass_but_may_fail() -> None:
    assert verdict(runs(GOOD, lost=1), runs(GOOD)).verdict == "cannot tell"
    assert "1 of 21 runs" in verdict(runs(GOOD, lost=1), runs(GOOD)).reasons[0]
    assert verdict(runs(LOW, lost=1), runs(GOOD)).verdict == "failed"


def test_a_learner_that_is_too_fast_is_told() -> None:
    found = verdict(runs(GOOD, 10e3), runs(GOOD))

    assert found.verdict == "passed"
    assert found.steps_to_threshold.too_fast
    assert found.to_dict()["too_fast"]


def test_no_verdict_where_the_run_is_too_short_to_see_a_slow_learner() -> None:
    """The base takes 80k of 100k: whoever never gets there counts as 1.25 times that."""
    short = verdict(runs(GOOD, [-100e3] * SEEDS), runs(GOOD, 80e3))

    assert short.verdict == short.steps_to_threshold.verdict == "cannot tell"
    assert "--total-timesteps 12" in short.steps_to_threshold.reason
    # everybody gets there: nothing is hidden
    assert verdict(runs(GOOD, 85e3), runs(GOOD, 80e3)).verdict == "passed"


def test_a_run_exactly_as_long_as_the_margin_gets_a_verdict() -> None:
    """The base's mean is 40k of 60k: even if all fail unseen, the ratio is that of the margin."""
    base = runs(GOOD, [25e3, 35e3, 40e3, 45e3, 55e3], repeat=1)
    short = verdict(base, base, horizon=60e3)

    assert short.steps_to_threshold.verdict == "cannot tell"
    assert "--total-timesteps 60000 or more" in short.steps_to_threshold.reason


def test_however_long_the_runs_a_failure_costs_three_times_the_bases_steps() -> None:
    """By hand: 17% of 20 seeds may fail unseen, at (3 - 1) times 30k each: 1.34 at most."""
    base = runs(GOOD, [30e3] * SEEDS)

    for horizon in (90e3, 300e3, 3e6):
        found = verdict(base, base, horizon=horizon)
        assert found.verdict == "passed"
        assert found.steps_to_threshold.estimate is not None
        assert found.steps_to_threshold.estimate.high == pytest.approx(1 + 2 * 0.1684, abs=1e-3)


def test_who_is_late_counts_as_one_that_never_gets_there() -> None:
    """By hand: 18 seeds of 30k and two of 90k, whether they arrive at 91k, at 290k or never."""
    base = runs(GOOD, [30e3] * SEEDS)

    found = [
        verdict(runs(GOOD, [30e3] * 18 + [late] * 2), base, horizon=300e3).steps_to_threshold
        for late in (91e3, 290e3, -300e3)
    ]

    assert found[0] == found[1] == found[2]
    assert found[0].estimate is not None
    assert found[0].estimate.value == pytest.approx(1.2)
    assert found[0].verdict == "cannot tell"


def test_seeds_that_may_fail_unseen_are_told_with_how_many_would_show_it() -> None:
    """The learner takes 1.3 times the base's steps: 17% of failures at 90k would reach 1.5."""
    base = runs(GOOD, [30e3] * SEEDS)

    found = verdict(runs(GOOD, [39e3] * SEEDS), base, horizon=300e3)

    assert found.verdict == found.steps_to_threshold.verdict == "cannot tell"
    # 0.975 = 1 - (1 - 6 / 51) ** 29.5
    assert "17% of seeds may yet fail" in found.steps_to_threshold.reason
    assert "3 times the base's steps each: --seeds 30 or more" in found.steps_to_threshold.reason


def test_a_base_that_does_not_learn_is_no_yardstick() -> None:
    never = runs([21.0] * 5, [-100e3] * SEEDS)

    assert verdict(runs(GOOD), never).verdict == "cannot tell"
    flat = runs([19.0], repeat=1, steps=[3e3])
    assert verdict(flat, flat).final_return.estimate is None
    assert judge_base(never).verdict == "cannot tell"
    assert judge_base(runs(GOOD)).verdict == "passed"


def test_the_base_must_show_that_half_of_its_seeds_learn() -> None:
    """By the exact limit: 15 of 20 may come from 50.9% or more, 14 of 20 from 45.7%."""
    there = {n: runs(GOOD, [30e3] * n + [-100e3] * (SEEDS - n)) for n in (14, 15)}

    assert judge_base(there[15]).verdict == "passed"
    assert judge_base(there[14]).verdict == "cannot tell"
    assert "14 of 20 runs, so in 46% of its seeds or more" in judge_base(there[14]).reasons[0]
    few = runs(GOOD[:4])
    assert few.seeds < MIN_SEEDS
    assert judge_base(few).verdict == "cannot tell"
    assert judge_base(runs(GOOD, lost=1)).verdict == "cannot tell"


def test_without_a_threshold_or_a_run_nobody_can_tell() -> None:
    plain = replace(runs(GOOD), steps=[], reached=[])
    nothing = Runs([], [], [], [])

    assert verdict(plain, plain).verdict == "cannot tell"
    assert "--threshold" in verdict(plain, plain).success_share.reason
    assert verdict(nothing, runs(GOOD)).verdict == "cannot tell"
    assert verdict(runs(GOOD), nothing).verdict == "cannot tell"
    assert judge_base(nothing).verdict == judge_base(plain).verdict == "cannot tell"


def test_verdicts_do_not_depend_on_the_unit_of_the_return() -> None:
    def scaled(one: Runs) -> Runs:
        return replace(
            one,
            first=[x * 0.01 - 9.0 for x in one.first],
            final=[x * 0.01 - 9.0 for x in one.final],
        )

    for final in (GOOD, LOW, [150.0, 380.0, 480.0, 490.0, 495.0]):
        plain = verdict(runs(final), runs(GOOD))
        assert verdict(scaled(runs(final)), scaled(runs(GOOD))).verdict == plain.verdict


one_run = st.tuples(st.floats(0, 100), st.floats(0, 500), st.floats(1, 1e5), st.booleans())
some_runs = st.lists(one_run, min_size=1, max_size=30).map(
    lambda told: Runs(
        first=[one[0] for one in told],
        final=[one[1] for one in told],
        steps=[one[2] for one in told],
        reached=[one[3] for one in told],
    )
)


@given(ours=some_runs, base=some_runs, horizon=st.floats(1e5, 1e6))
def test_any_runs_get_a_verdict_and_too_few_never_pass(
    ours: Runs, base: Runs, horizon: float
) -> None:
    found = judge(ours, base, horizon)

    assert found.verdict in ("passed", "failed", "cannot tell")
    worse = np.mean(ours.reached) < float(np.mean(base.reached)) - SHARE_MARGIN - 1e-9
    if min(ours.seeds, base.seeds) < MIN_SEEDS or worse:
        assert found.verdict != "passed"
    for check in (found.success_share, found.final_return, found.steps_to_threshold):
        if check.estimate is not None:
            assert check.estimate.low <= check.estimate.value <= check.estimate.high


@given(ours=some_runs, base=some_runs)
def test_a_failure_more_never_turns_a_verdict_into_a_pass(ours: Runs, base: Runs) -> None:
    worse = replace(ours, reached=[False, *ours.reached[1:]])

    if judge(worse, base, 1e5).success_share.verdict == "passed":
        assert judge(ours, base, 1e5).success_share.verdict == "passed"
