"""Implementations that take turns: order, pairing, refusals, deaths, interrupts, entries."""

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench import recipes
from fastppo.bench.launch import measure
from fastppo.bench.launch.implementations import Implementation
from fastppo.bench.launch.measure import Effort, Measurement
from fastppo.bench.launch.steady import steady_index
from fastppo.bench.results import result
from fastppo.bench.train import entries

WORK: dict[str, Any] = {
    "parameters": 10,
    "forward_flops": 20,
    "rows_per_update": 8,
    "minibatch_rows": 4,
    "epochs": 2,
    "gradient_steps_per_update": 4,
    "precision": "float32",
    "obs_bytes": 16,
    "trains_on_reset_rows": False,
    "wrappers": ["norm_obs"],
    "network": "mlp 4 tanh, two trunks",
}
SHORT = Effort(seconds=0.05, rounds=4, launches=2, warmup_s=0.0, tune=False)

# Trains at a fixed pace, and writes down when it computes: argv is the seconds of an update, the
# manifest's odd fields, the updates after which it dies, and the file to write to.
CHILD = """
    import json, os, sys, time
    pace, odd, lives = float(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    log = sys.argv[4]
    work = json.loads(sys.argv[5]) | odd
    print(json.dumps({"event": "ready", "work": work, "info": {"version": "1.2"}}), flush=True)
    for update in range(lives):
        begin = time.monotonic()
        for _ in range(round(pace / 0.002)):
            time.sleep(0.002)  # one long sleep would go on while the process is stopped
        with open(log, "a") as file:
            file.write(f"{begin} {time.monotonic()}\\n")
        print(json.dumps({"event": "update", "env_steps": 100,
                          "phases": {"update": pace, "env": 0.0}}), flush=True)
    sys.exit("RuntimeError: out of luck")
"""
CEILINGS = """
    import json, os, sys, time
    assert len(json.loads(os.environ["FASTPPO_BENCH"])["torch_threads"]) == 1
    print(json.dumps({"event": "ready", "work": json.loads(sys.argv[1]), "info": {}}), flush=True)
    while True:
        for name, seconds in (("envpool", 0.001), ("rollout", 0.002), ("update", 0.004)):
            time.sleep(seconds)
            print(json.dumps({"event": "update", "env_steps": 100, "ceiling": name}), flush=True)
"""


@pytest.fixture(autouse=True)
def _fake_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CEILINGS), json.dumps(WORK)]
    monkeypatch.setattr(measure, "ours", lambda name, _: Implementation(name, command))


@pytest.fixture
def child(tmp_path: Path) -> Any:
    def make(name: str, pace: float = 0.01, lives: int = 10**6, **odd: Any) -> Implementation:
        source = textwrap.dedent(CHILD)
        arguments = [str(pace), json.dumps(odd), str(lives), str(tmp_path / name), json.dumps(WORK)]
        return Implementation(name, [sys.executable, "-c", source, *arguments])

    return make


def measured(*implementations: Implementation, **options: Any) -> Measurement:
    config = recipes.config_for("CartPole-v1", "paper")
    measurement = Measurement(config, implementations, SHORT, **{"base": "reference", **options})
    measurement.run()
    return measurement


def by_name(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((entry["impl"], entry) for entry in found)


def test_half_the_pace_is_the_ratio_one_half_and_the_record_is_valid(
    child: Any, tmp_path: Path
) -> None:
    # long enough that a busy machine's scheduler adds little to either
    found = measured(child("fastppo", 0.08), child("reference", 0.04))
    record = result.new("train", entries.entries(found), failures=entries.failures(found))
    path = tmp_path / "train.json"
    result.write(path, record)
    ours = dict(by_name(result.read(path)["results"]))["fastppo"]

    ratio = ours["train"]["ratio"]
    assert 0.4 < ratio["value"] < 0.6
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert (ratio["base"], ratio["rounds"]) == ("reference", 4)
    assert ours["id"] == "train/CartPole-v1/8x128"
    assert [launch["rounds"] for launch in ours["launches"]] == [[0, 2], [1, 3]]
    assert set(ours["train"]["ceilings"]) == {"envpool", "rollout", "update"}
    assert [len(rates) for rates in ours["train"]["ceiling_launches"].values()] == [2, 2, 2]
    assert ours["train"]["work"]["flops_per_update"] == 8 * 20 * (1 + 3 * 2)
    assert ours["train"]["info"] == {"version": "1.2"}
    assert ours["train"]["learning"] == "not verified"
    assert record["failures"] == []


def test_only_one_computes_at_a_time(child: Any, tmp_path: Path) -> None:
    """From their own notes of when they computed, rounds only: starts are one by one anyway."""
    measured(child("fastppo", 0.02), child("reference", 0.02))

    spans = {
        name: [
            tuple(map(float, line.split())) for line in (tmp_path / name).read_text().splitlines()
        ]
        for name in ("fastppo", "reference")
    }
    # a sleep that a pause cut in two spans the pause: those are told by their length
    whole = {name: [s for s in all_ if s[1] - s[0] < 0.04] for name, all_ in spans.items()}
    overlaps = [
        (ours, theirs)
        for ours in whole["fastppo"]
        for theirs in whole["reference"]
        if min(ours[1], theirs[1]) - max(ours[0], theirs[0]) > 0.01
    ]
    assert len(whole["fastppo"]) > 10
    assert overlaps == []


def test_rounds_run_forwards_and_backwards(child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    slice_of = Measurement._slice

    def watch(self: Measurement, number: int, process: Any, run: Any) -> Any:
        order.append(f"{number}{process.name[0]}")
        return slice_of(self, number, process, run)

    monkeypatch.setattr(Measurement, "_slice", watch)
    measured(child("reference"), child("fastppo"))

    assert order == ["0r", "0f", "2f", "2r", "1f", "1r", "3r", "3f"]


def test_different_work_is_refused_and_told(child: Any) -> None:
    found = measured(child("reference"), child("peer", parameters=11, wrappers=[]))

    assert [entry["impl"] for entry in entries.entries(found)] == ["reference"]
    told = entries.failures(found)[0]
    assert told["impl"] == "peer"
    assert "does different work: parameters 11 for 10; without norm_obs" in told["reason"]
    assert "--allow-mismatch" in told["reason"]


def test_different_work_is_shown_on_request(child: Any) -> None:
    peer = child("peer", trains_on_reset_rows=True, precision="bfloat16")
    found = measured(child("reference"), peer, allow_mismatch=True)

    entry = dict(by_name(entries.entries(found)))["peer"]
    assert entry["train"]["mismatch"] == [
        "precision bfloat16 for float32",
        "trains on reset rows",
    ]
    assert entries.failures(found) == []


@pytest.mark.parametrize("lives", [0, 1, 5])
def test_one_that_dies_is_told_and_the_others_are_kept(
    child: Any, lives: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(child("reference"), child("peer", lives=lives), child("fastppo"))

    assert {entry["impl"] for entry in entries.entries(found)} == {"reference", "fastppo"}
    (failure,) = entries.failures(found)
    assert failure["reason"].endswith("died (exit code 1): RuntimeError: out of luck")
    assert capsys.readouterr().err.count("warning: CartPole-v1 8x128: peer: died") == 1


def test_the_ceilings_have_the_threads_that_were_found(child: Any) -> None:
    config = recipes.config_for("CartPole-v1", "paper")
    tuning = Effort(seconds=0.05, rounds=1, launches=1, warmup_s=0.0, tune=True)
    found = Measurement(config, [child("fastppo")], tuning, base="fastppo")
    found.run()

    assert found.failures == {}
    assert all(rates for (rates,) in found.ceilings.values())


def test_without_its_base_there_are_rates_and_no_ratio(child: Any) -> None:
    found = measured(child("reference", lives=0), child("fastppo"))

    (entry,) = entries.entries(found)
    assert entry["train"]["ratio"] is None
    assert entry["train"]["env_steps_per_s"]["value"] > 0


def test_an_interrupt_keeps_what_was_measured(child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    round_of = Measurement._round

    def interrupted(self: Measurement, number: int, *, backwards: bool) -> None:
        if number == 2:
            raise KeyboardInterrupt
        round_of(self, number, backwards=backwards)

    monkeypatch.setattr(Measurement, "_round", interrupted)
    config = recipes.config_for("CartPole-v1", "paper")
    measurement = Measurement(
        config, [child("reference"), child("fastppo")], SHORT, base="reference"
    )
    with pytest.raises(KeyboardInterrupt):
        measurement.run()

    found = dict(by_name(entries.entries(measurement)))
    assert set(found) == {"reference", "fastppo"}
    assert found["fastppo"]["train"]["ratio"]["rounds"] == 1
    assert result.problem(result.new("train", list(found.values()))) is None


def test_warm_up_is_told_from_the_steady_state() -> None:
    compiling = [5.0, 1.4, 1.0, 1.01, 0.99, 1.0, 1.02, 0.98]

    assert steady_index(compiling) == 2
    assert steady_index([1.0, 1.0, 1.0, 1.0]) == 0


def test_what_slows_down_all_the_time_has_no_steady_state() -> None:
    assert steady_index([1.0 * 1.3**i for i in range(12)]) is None
    assert steady_index([1.0, 1.0, 1.0]) is None


def test_noise_is_no_warm_up() -> None:
    noisy = [1.0, 1.3, 0.9, 1.2, 1.1, 0.8, 1.25, 0.95, 1.15, 1.05]

    assert steady_index(noisy) == 0
