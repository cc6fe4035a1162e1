"""Does it learn as well as the base: who passes, who fails, and where nobody can tell."""

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from fastppo.bench.results import parity
from fastppo.bench.results.parity import Runs, configuration_key, judge, judge_base, verified
from fastppo.config import Config

CONFIG = Config(env_id="CartPole-v1")


def runs(final: list[float], steps: list[float] | float = 30e3, lost: int = 0) -> Runs:
    """Runs from 20 to `final`; a negative number of steps was not enough to get there."""
    listed = steps if isinstance(steps, list) else [steps + 500.0 * i for i in range(len(final))]
    return Runs(
        first=[20.0] * len(final),
        final=final,
        steps=[abs(one) for one in listed],
        reached=[one > 0 for one in listed],
        lost=lost,
    )


GOOD = [470.0, 480.0, 485.0, 490.0, 495.0]


def verdict(ours: Runs, base: Runs, horizon: float = 100e3) -> parity.Parity:
    return judge(ours, base, horizon, rng=np.random.default_rng(0))


def test_an_equal_learner_passes() -> None:
    found = verdict(runs([473.0, 478.0, 486.0, 489.0, 494.0], 31e3), runs(GOOD))

    assert found.verdict == "passed", found.reasons
    assert not found.too_fast


def test_a_learner_with_lower_returns_fails() -> None:
    found = verdict(runs([300.0, 310.0, 320.0, 330.0, 340.0]), runs(GOOD))

    assert found.verdict == found.final_return.verdict == "failed"


def test_a_learner_that_takes_twice_the_steps_fails() -> None:
    found = verdict(runs(GOOD, 61e3), runs(GOOD))

    assert found.verdict == found.steps_to_threshold.verdict == "failed"
    assert found.final_return.verdict == "passed"
    # by hand: 61 to 63 thousand over 30 to 32 thousand
    assert found.steps_to_threshold.estimate is not None
    assert found.steps_to_threshold.estimate.value == pytest.approx(62 / 31)


def test_a_learner_that_never_gets_there_fails() -> None:
    found = verdict(runs(GOOD, [-99e3] * 5), runs(GOOD))

    assert found.steps_to_threshold.verdict == "failed"


@pytest.mark.parametrize(("ratio", "drop"), [(1.5, 0.0), (1.0, 46.0)])
def test_a_learner_on_a_margin_seldom_passes(ratio: float, drop: float) -> None:
    draw = np.random.default_rng(3)
    passed = 0
    for _ in range(60):
        ours, theirs = (
            runs(list(draw.normal(final, 10.0, 5)), list(draw.lognormal(0.0, 0.15, 5) * steps))
            for final, steps in ((480.0 - drop, 30e3 * ratio), (480.0, 30e3))
        )
        passed += verdict(ours, theirs).verdict == "passed"

    assert passed <= 6


def test_two_seeds_cannot_tell_however_bad_or_good() -> None:
    for final in ([480.0, 481.0], [30.0, 31.0]):
        found = verdict(runs(final), runs(GOOD))

        assert found.verdict == "cannot tell"
        assert "2 seeds of 5" in found.reasons[0]


def test_a_wide_interval_cannot_tell() -> None:
    found = verdict(runs([150.0, 380.0, 480.0, 490.0, 495.0]), runs(GOOD))

    assert found.verdict == found.final_return.verdict == "cannot tell"


def test_one_seed_in_three_that_fails_to_learn_does_not_pass() -> None:
    """The interquartile mean alone hides it: it drops the worst quarter."""
    found = verdict(runs([60.0, 70.0, *GOOD[1:]]), runs(GOOD))

    assert found.verdict != "passed"


def test_lost_seeds_do_not_pass_but_may_fail() -> None:
    assert verdict(runs(GOOD, lost=1), runs(GOOD)).verdict == "cannot tell"
    assert "1 of 6 runs" in verdict(runs(GOOD, lost=1), runs(GOOD)).reasons[0]
    assert verdict(runs([300.0] * 5, lost=1), runs(GOOD)).verdict == "failed"


def test_a_learner_that_is_too_fast_is_told() -> None:
    found = verdict(runs(GOOD, 10e3), runs(GOOD))

    assert found.verdict == "passed"
    assert found.steps_to_threshold.too_fast
    assert found.to_dict()["too_fast"]


def test_no_verdict_where_the_run_is_too_short_to_see_a_slow_learner() -> None:
    """The base takes 80k of 100k: whoever never gets there counts as 1.25 times that."""
    short = verdict(runs(GOOD, [-100e3] * 5), runs(GOOD, 80e3))

    assert short.verdict == short.steps_to_threshold.verdict == "cannot tell"
    assert "--total-timesteps 12" in short.reasons[1]
    # everybody gets there: nothing is hidden
    assert verdict(runs(GOOD, 85e3), runs(GOOD, 80e3)).verdict == "passed"


def test_a_base_that_does_not_learn_is_no_yardstick() -> None:
    never = runs([21.0] * 5, [-100e3] * 5)

    assert verdict(runs(GOOD), never).verdict == "cannot tell"
    assert verdict(runs([19.0] * 5), runs([19.0] * 5)).final_return.estimate is None
    assert judge_base(never).verdict == "cannot tell"
    assert judge_base(runs(GOOD)).verdict == "passed"
    assert judge_base(runs(GOOD[:4])).verdict == "cannot tell"


def test_verdicts_do_not_depend_on_the_unit_of_the_return() -> None:
    def scaled(one: Runs) -> Runs:
        return replace(
            one,
            first=[x * 0.01 - 9.0 for x in one.first],
            final=[x * 0.01 - 9.0 for x in one.final],
        )

    for final in (GOOD, [300.0, 310.0, 320.0, 330.0, 340.0], [150.0, 380.0, 480.0, 490.0, 495.0]):
        plain = verdict(runs(final), runs(GOOD))
        assert verdict(scaled(runs(final)), scaled(runs(GOOD))).verdict == plain.verdict


def record_of(config: Config, impl: str, verdict: str, seeds: int = 5) -> dict[str, Any]:
    key = configuration_key(config)
    entry = {"impl": impl, "configuration": key, "verdict": verdict, "seeds": seeds}
    return {"kind": "learn", "comparison": {"parity": [entry]}}


def test_a_rate_is_verified_by_a_record_of_its_own_configuration_only() -> None:
    passed = record_of(CONFIG, "fastppo", "passed")

    assert verified([passed], "fastppo", CONFIG)
    assert verified([passed], "fastppo", replace(CONFIG, seed=9, total_timesteps=10**9))
    assert not verified([passed], "sb3", CONFIG)
    assert not verified([passed], "fastppo", replace(CONFIG, num_envs=64))
    assert not verified([passed], "fastppo", replace(CONFIG, env_id="Acrobot-v1"))
    assert not verified([], "fastppo", CONFIG)
    assert not verified([{**passed, "kind": "train"}], "fastppo", CONFIG)
    assert not verified([record_of(CONFIG, "fastppo", "cannot tell")], "fastppo", CONFIG)
    failed = record_of(CONFIG, "fastppo", "failed")
    assert not verified([passed, failed], "fastppo", CONFIG)


def test_a_small_study_cannot_be_picked_over_a_larger_one() -> None:
    small = record_of(CONFIG, "fastppo", "passed", seeds=5)
    unsure = record_of(CONFIG, "fastppo", "cannot tell", seeds=10)
    large = record_of(CONFIG, "fastppo", "passed", seeds=20)

    assert not verified([small, unsure], "fastppo", CONFIG)
    assert verified([small, unsure, large], "fastppo", CONFIG)
    failed = record_of(CONFIG, "fastppo", "failed", seeds=5)
    assert not verified([failed, large], "fastppo", CONFIG)


def test_every_field_that_is_learned_is_in_the_key_and_no_other() -> None:
    known = {field.name for field in fields(Config)}
    left_out = {name for name in known if name.startswith(parity.TRACKING)}
    values = CONFIG.to_dict()
    key = configuration_key(CONFIG)

    assert set(parity.NOT_LEARNED) <= known
    for name in known:
        same = configuration_key(values | {name: "another"}) == key
        assert same == (name in parity.NOT_LEARNED or name in left_out), name
    assert configuration_key(json.loads(json.dumps(values))) == key
