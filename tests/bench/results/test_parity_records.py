"""Which result files show that an implementation learns: by their runs, not by what they say."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.recipes import workloads
from fastppo.bench.results import parity_records, result
from fastppo.bench.results.parity_records import (
    configuration_key,
    runs_of,
    shipped,
    studies,
    verified,
)
from fastppo.config import Config
from fastppo.errors import UserError

CONFIG = Config(env_id="CartPole-v1", total_timesteps=102_400)
GOOD = [(485.0, 30_000 + 300 * i) for i in range(20)]
BAD = [(25.0, None)] * 20
Run = tuple[float, int | None]


def curve(seed: int, final: float, steps: int | None) -> dict[str, Any]:
    return {
        "seed": seed, "env_steps": [100_000], "wall_s": [9.0], "returns": [final], "games": [20],
        "steps_to_threshold": steps, "seconds_to_threshold": None if steps is None else 3.0,
        "total_steps": 100_000, "total_s": 9.0, "finished": True,
        "first_return": 20.0, "final_return": final,
    }  # fmt: skip


def learn_entry(impl: str, runs: Sequence[Run], config: Config) -> dict[str, Any]:
    return {
        "id": "learn/CartPole-v1/8x128", "impl": impl, "unit": "return", "better": "higher",
        "clock": "wall", "launches": [{"order": 0, "samples": [final for final, _ in runs]}],
        "learn": {
            "env_id": "CartPole-v1", "config": config.to_dict(), "work": None, "threshold": 475.0,
            "curves": [curve(1 + i, *run) for i, run in enumerate(runs)],
            "final_iqm": {"value": 485.0, "low": 480.0, "high": 490.0},
        },
    }  # fmt: skip


def record(
    runs: Sequence[Run] = GOOD, base: Sequence[Run] = GOOD, said: str = "passed", **extra: Any
) -> dict[str, Any]:
    """A study of `mine` beside the reference; it says `said` of itself, as the older rule did."""
    config = extra.pop("config", CONFIG)
    entries = [learn_entry("mine", runs, config), learn_entry("reference", base, config)]
    told = {"id": "learn/CartPole-v1/8x128", "impl": "mine", "verdict": said, "reasons": []}
    comparison = {"base": "reference", "parity": [told]}
    return result.new("learn", entries, comparison=comparison, **extra)


def test_a_rate_is_verified_by_a_record_of_its_own_configuration_only() -> None:
    passed = record()

    assert verified([passed], "mine", CONFIG)
    assert verified([passed], "reference", CONFIG)
    assert verified([passed], "mine", replace(CONFIG, seed=9, total_timesteps=10**9))
    assert not verified([passed], "sb3", CONFIG)
    assert not verified([passed], "mine", replace(CONFIG, num_envs=64))
    assert not verified([passed], "mine", replace(CONFIG, env_id="Acrobot-v1"))
    assert not verified([], "mine", CONFIG)
    assert not verified([{**passed, "kind": "train"}], "mine", CONFIG)


def test_a_pass_that_the_older_rule_gave_five_seeds_is_not_believed() -> None:
    assert not verified([record(GOOD[:5], GOOD[:5])], "mine", CONFIG)
    assert not verified([record(GOOD[:5], GOOD[:5])], "reference", CONFIG)


def test_a_pass_of_runs_among_which_some_fail_is_not_believed() -> None:
    assert not verified([record([*GOOD[:18], *BAD[:2]])], "mine", CONFIG)


def test_what_a_file_says_of_itself_counts_for_nothing() -> None:
    assert verified([record(said="cannot tell")], "mine", CONFIG)
    assert not verified([record(BAD, said="passed")], "mine", CONFIG)
    silent = record()
    del silent["comparison"]["parity"]
    assert verified([silent], "mine", CONFIG)


def test_without_the_runs_or_the_base_nothing_is_verified() -> None:
    without_base, unfinished, unknown = record(), record(), record()
    del without_base["comparison"]["base"]
    for one in unfinished["results"][0]["learn"]["curves"]:
        del one["finished"]
    for one in unknown["results"][0]["learn"]["curves"]:
        one["final_return"] = None

    for odd in (without_base, unfinished, unknown, {**record(), "results": []}):
        assert not verified([odd], "mine", CONFIG)


def test_a_seed_that_crashed_is_not_forgotten() -> None:
    crash = {"id": "learn/CartPole-v1/8x128", "impl": "mine", "seed": 21, "reason": "killed"}
    with_crash = record()
    with_crash["failures"] = [crash]
    elsewhere = record()
    elsewhere["failures"] = [{**crash, "impl": "sb3"}]

    assert not verified([with_crash], "mine", CONFIG)
    assert verified([elsewhere], "mine", CONFIG)


def test_a_small_study_cannot_be_picked_over_a_larger_one() -> None:
    small, large = record(GOOD[:18], GOOD[:18]), record()
    unsure = record([*GOOD[:18], *BAD[:2]])

    assert not verified([small, unsure], "mine", CONFIG)
    assert verified([small, large], "mine", CONFIG)
    # and one that failed is not outvoted
    assert not verified([record(BAD[:5], GOOD[:5]), large], "mine", CONFIG)


def test_a_finished_run_without_a_last_game_is_lost() -> None:
    told = [curve(1, 485.0, 30_000), {**curve(2, 485.0, 30_000), "final_return": None}]
    found = runs_of(told, 475.0, crashed=1)

    assert (found.seeds, found.lost) == (1, 2)
    assert len(found.first) == len(found.final) == len(found.steps) == len(found.reached) == 1
    assert runs_of(told, None, crashed=0).reached == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("curves", 0, "final_return"), "high"),
        (("curves", 0, "first_return"), [1]),
        (("curves", 0, "finished"), 1),
        (("curves", 0, "steps_to_threshold"), 0),
        (("config", "total_timesteps"), "many"),
    ],
)
def test_runs_of_another_type_are_refused_in_one_line(
    place: tuple[Any, ...], value: object, tmp_path: Path
) -> None:
    odd = record()
    inner = odd["results"][0]["learn"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(odd))

    with pytest.raises(UserError, match=f"odd.json: breaks .*{place[-1]}") as told:
        result.read(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("told", [{"impl": "mine"}, {"impl": "mine", "verdict": "fine"}, "passed"])
def test_a_parity_of_another_type_is_refused_in_one_line(told: object, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({**record(), "comparison": {"parity": [told]}}))

    with pytest.raises(UserError, match=r"odd.json: breaks .*comparison.parity\[0\]"):
        result.read(path)


def test_every_field_that_is_learned_is_in_the_key_and_no_other() -> None:
    known = {field.name for field in fields(Config)}
    left_out = {name for name in known if name.startswith(parity_records.TRACKING)}
    values = CONFIG.to_dict()
    key = configuration_key(CONFIG)

    assert set(parity_records.NOT_LEARNED) <= known
    for name in known:
        same = configuration_key(values | {name: "another"}) == key
        assert same == (name in parity_records.NOT_LEARNED or name in left_out), name
    assert configuration_key(json.loads(json.dumps(values))) == key


def test_the_studies_that_ship_are_whole_and_say_what_their_runs_say() -> None:
    found = shipped()

    assert len(found) >= 3
    for one in found:
        assert one["kind"] == "learn"
        for pair in one["comparison"]["parity"]:
            [entry] = [
                e for e in one["results"] if (e["id"], e["impl"]) == (pair["id"], pair["impl"])
            ]
            config = Config.from_dict(entry["learn"]["config"])
            [study] = studies([one], pair["impl"], config)
            assert study.verdict == pair["verdict"]
            assert study.parity.reasons == pair["reasons"]
            assert study.seeds == len(entry["learn"]["curves"])


def test_the_default_of_cartpole_is_verified_by_what_ships() -> None:
    [config] = workloads(["CartPole-v1"], [])

    assert verified(shipped(), "fastppo", config)
    assert not verified(shipped(), "fastppo", replace(config, learning_rate=0.1))


def test_a_study_that_settles_nothing_says_why() -> None:
    [config] = workloads(["Pendulum-v1"], [])

    [study] = studies(shipped(), "fastppo", config)

    told = study.told()
    assert told["verdict"] == "cannot tell"
    assert any("env steps" in reason for reason in told["reasons"])
