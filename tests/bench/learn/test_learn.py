"""`fastppo bench learn` on made-up learners, from the command line to the result file."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastppo import arguments
from fastppo.bench.launch import implementations
from fastppo.bench.launch.implementations import Implementation
from fastppo.bench.learn import command as learn
from fastppo.bench.learn.args import Args
from fastppo.bench.learn.runs import LearnTask, interleaved
from fastppo.bench.report import command as report
from fastppo.bench.results import result
from fastppo.bench.results.parity_records import verified
from fastppo.config import Config
from fastppo.errors import MachineError, UserError

CONFIG = Config(env_id="CartPole-v1")

# Prints a whole run at once: the return climbs by `slope` per update from 20 to `top`. After
# `lives` updates it goes the way of `end`.
LEARNER = """
import json, os, signal, sys, time
top, slope, lives, end = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
request = json.loads(os.environ["FASTPPO_BENCH"])
config, seed = request["config"], request["seed"]
say = lambda **line: print(json.dumps(line), flush=True)
rows = config["num_envs"] * config["num_steps"]
work = dict(parameters=9, forward_flops=9, rows_per_update=rows, minibatch_rows=9, epochs=1,
            gradient_steps_per_update=1, precision="float32", obs_bytes=16,
            trains_on_reset_rows=False, wrappers=[], network="mlp")
say(event="ready", work=work, info={"version": "1"})
for update in range(config["total_timesteps"] // rows):
    if update == lives and (end != "odd" or seed % 2):
        if end == "wait":
            time.sleep(1000)
        sys.exit(0 if end == "stop" else "RuntimeError: out of luck")
    say(event="update", env_steps=rows - 24, episodes=10,
        return_mean=min(top, 20 + slope * update) + seed)
"""


def learner(top: float = 490.0, slope: float = 20.0, lives: int = -1, end: str = "die") -> str:
    """A command line, for `--impl name='...'`."""
    return shlex.join([sys.executable, "-c", LEARNER, str(top), str(slope), str(lives), end])


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    record: dict[str, Any]


@pytest.fixture
def bench_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Calls `fastppo bench learn CartPole-v1 ARGS` in this process, with learners by name."""

    def call(*args: str, **learners: str) -> Outcome:
        found = [Implementation(name, shlex.split(text)) for name, text in learners.items()]
        monkeypatch.setattr(implementations, "parse", lambda texts: found)
        target = tmp_path / "learn.json"
        options = ["CartPole-v1", "--total-timesteps", "61440", "--json", str(target), *args]
        capsys.readouterr()
        code = learn.run(arguments.read(Args, options, "fastppo bench learn"))
        return Outcome(code, *capsys.readouterr(), result.read(target))

    return call


def test_implementations_take_turns() -> None:
    two = [Implementation(name, []) for name in "AB"]
    jobs = list(interleaved(LearnTask(CONFIG, 475.0), two, [1, 2, 3]))

    order = [f"{job.implementation.name}{job.seed}" for job in jobs]
    assert order == ["A1", "B1", "B2", "A2", "A3", "B3"]
    assert [job.order for job in jobs] == list(range(6))


def test_two_equal_learners_end_to_end(bench_learn: Callable[..., Outcome]) -> None:
    found = bench_learn(reference=learner(), mine=learner(top=491.0))
    entries = {entry["impl"]: entry for entry in found.record["results"]}
    mine = entries["mine"]

    assert found.code == 0
    assert found.record["kind"] == "learn"
    assert mine["id"] == "learn/CartPole-v1/8x128"
    # 60 updates of 1000 env steps and 10 games. The last ten updates of 29 and of 30 average
    # 465.5 + seed and 474.6 + seed
    curve = mine["learn"]["curves"][0]
    assert curve["env_steps"][-1] == curve["total_steps"] == 60_000
    assert curve["steps_to_threshold"] == 30_000
    assert curve["wall_s"] == sorted(curve["wall_s"])
    assert [launch["samples"] for launch in mine["launches"]] == [[491.0 + s] for s in range(1, 21)]
    assert mine["learn"]["final_iqm"]["value"] == pytest.approx(501.5)
    told = mine["learn"]["to_threshold"]
    assert told["reached"] == 20
    # seeds 10 to 20 are an update earlier than 1 to 9; the sixth seed from either end bounds it
    median = told["median_steps_to_threshold"]
    assert (median["low"], median["value"], median["high"], median["label"]) == (
        29_000, 29_000, 30_000, "95%",
    )  # fmt: skip
    orders = sorted(one["order"] for entry in entries.values() for one in entry["launches"])
    assert orders == list(range(40))
    comparison = found.record["comparison"]
    (improvement,) = comparison["improvement"]
    # 491 + s over 490 + t, both 1 to 20: 210 pairs with s >= t are won, 19 with s = t - 1 are ties
    assert improvement["value"] == pytest.approx((210 + 19 / 2) / 400)
    assert {one["impl"]: one["verdict"] for one in comparison["parity"]} == {
        "reference": "passed",
        "mine": "passed",
    }
    assert verified([found.record], "mine", Config.from_dict(mine["learn"]["config"]))
    assert "502 [" in found.out
    assert "got there and stayed: 20 of 20 seeds" in " ".join(found.out.split())
    table, told, path = found.out.rpartition("samples: ")
    assert told
    assert Path(path.strip()).is_file()
    assert max(len(line) for line in table.splitlines()) <= 80


def test_a_study_is_printed_as_report_prints_its_file(
    bench_learn: Callable[..., Outcome], reported: Callable[[Path], str], tmp_path: Path
) -> None:
    path, page = tmp_path / "learn.json", tmp_path / "learn.xml"
    found = bench_learn(
        "--seeds", "2", "--junit", str(page), reference=learner(), worse=learner(top=300.0)
    )

    assert found.out == f"{reported(path)}samples: {path}\nreport: {page}\n"
    assert page.read_text() == report.junit([found.record])


def test_a_worse_learner_end_to_end(bench_learn: Callable[..., Outcome]) -> None:
    found = bench_learn("--seeds", "5", reference=learner(), worse=learner(top=300.0))
    (reference, worse) = found.record["results"]

    assert worse["learn"]["to_threshold"]["reached"] == 0
    # counted with all of it, not dropped
    median = worse["learn"]["to_threshold"]["median_steps_to_threshold"]
    assert (median["value"], median["low"], median["high"]) == (None, 60_000, None)
    assert found.record["comparison"]["parity"][1]["verdict"] == "failed"
    (row, *_) = [line.split() for line in found.out.splitlines() if line.startswith("  worse ")]
    assert row[-5:] == ["0", "of", "5", "not", "reached"]
    assert "failed" in found.out
    assert not verified([found.record], "worse", Config.from_dict(worse["learn"]["config"]))
    assert reference["learn"]["mismatch"] == []


def test_a_crash_on_a_seed_keeps_the_rest(bench_learn: Callable[..., Outcome]) -> None:
    found = bench_learn(
        "--seeds", "2", reference=learner(), unlucky=learner(lives=3, end="odd"), mine=learner()
    )
    counts = {one["impl"]: len(one["launches"]) for one in found.record["results"]}

    assert found.code == 3
    assert counts == {"reference": 2, "unlucky": 1, "mine": 2}
    (failure,) = found.record["failures"]
    assert failure["impl"] == "unlucky"
    assert failure["seed"] == 1
    assert "RuntimeError: out of luck" in failure["reason"]
    warnings = [line for line in found.err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    said = f"unlucky on learn/CartPole-v1/8x128 could not be measured: {failure['reason']}"
    assert " ".join(found.out.split()).count(said) == 1


def test_who_has_no_run_at_all_cannot_be_told(bench_learn: Callable[..., Outcome]) -> None:
    """On one of two tasks, say: a pass on the other must not stand for both."""
    found = bench_learn("--seeds", "1", reference=learner(), mine=learner(lives=0))

    verdicts = {one["impl"]: one["verdict"] for one in found.record["comparison"]["parity"]}
    assert verdicts == {"reference": "cannot tell", "mine": "cannot tell"}
    assert "1 of 1 runs did not finish" in " ".join(found.out.split())


def test_an_implementation_that_stops_early_is_left_out(
    bench_learn: Callable[..., Outcome],
) -> None:
    found = bench_learn("--seeds", "1", reference=learner(lives=5, end="stop"))

    assert found.code == 3
    assert found.record["results"] == []
    said = f"could not be measured: {found.record['failures'][0]['reason']}"
    assert said in " ".join(found.out.split())
    assert "ended after 5,000 of 61,440 env steps" in found.record["failures"][0]["reason"]


def test_runs_side_by_side_give_the_same_curves(bench_learn: Callable[..., Outcome]) -> None:
    arguments = {"reference": learner(), "mine": learner(lives=2, end="odd")}
    alone = bench_learn("--seeds", "3", **arguments)
    together = bench_learn("--seeds", "3", "--jobs", "3", **arguments)

    assert [one["launches"] for one in together.record["results"]] == [
        one["launches"] for one in alone.record["results"]
    ]
    assert len(together.record["failures"]) == len(alone.record["failures"]) == 2
    assert "side by side" in together.out


def test_a_threshold_of_ones_own(bench_learn: Callable[..., Outcome]) -> None:
    found = bench_learn("--seeds", "1", "--threshold", "100", reference=learner())

    assert found.record["results"][0]["learn"]["threshold"] == 100.0
    assert "threshold 100" in found.out


def test_the_same_runs_give_the_same_intervals(bench_learn: Callable[..., Outcome]) -> None:
    first, second = (bench_learn("--seeds", "3", reference=learner()) for _ in range(2))

    assert (
        first.record["results"][0]["learn"]["final_iqm"]
        == second.record["results"][0]["learn"]["final_iqm"]
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["CartPole-v1", "--seeds", "0"], "--seeds: 0 must be at least 1"),
        (["CartPole-v1", "--jobs", "0"], "--jobs: 0 must be at least 1"),
        (["CartPole-v1", "--total-timesteps", "0"], "--total-timesteps: 0 must be at least 1"),
        (["CartPole-v1", "--total-timesteps", "9"], "--total-timesteps: 9 is less than one"),
        (["CartPole-v1", "--threshold", "nan"], "--threshold: nan must be a finite number"),
        (["CartPole-v1", "Acrobot-v1", "--threshold", "1"], "--threshold: one number for 2"),
        (["CartPole-v1", "--base", "sb3"], "--base: 'sb3' is not trained"),
        (["CartPole-v1", "--impl", "nonsense"], "--impl: 'nonsense' is unknown"),
        (["NoSuchEnv-v1"], "NoSuchEnv-v1"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(words: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as told:
        learn.run(arguments.read(Args, words, "fastppo bench learn"))

    assert "\n" not in str(told.value)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupt_keeps_what_was_measured(tmp_path: Path, jobs: int) -> None:
    """The first run has ended and the second hangs in its fourth update when Ctrl-C comes."""
    target = tmp_path / "learn.json"
    script = (
        "import json, signal, sys; from fastppo.bench.learn import command\n"
        "from fastppo.bench.launch import implementations\n"
        "from fastppo.bench.launch.implementations import Implementation\n"
        # a parent that ignores SIGINT, such as a shell's background job, hands that down
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "found = [Implementation(*pair) for pair in json.loads(sys.argv.pop(1))]\n"
        "implementations.parse = lambda texts: found\n"
        "from fastppo import arguments\n"
        "from fastppo.bench.learn.args import Args\n"
        "command.run(arguments.read(Args, sys.argv[1:], 'fastppo bench learn'))\n"
    )
    pairs = [
        ("reference", shlex.split(learner())),
        ("slow", shlex.split(learner(lives=3, end="wait"))),
    ]
    command = [sys.executable, "-c", script, json.dumps(pairs), "CartPole-v1",
               "--json", str(target), "--jobs", str(jobs),
               "--seeds", "1", "--total-timesteps", "20480"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    deadline = time.monotonic() + 120
    while not target.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert "KeyboardInterrupt" in err
    assert process.returncode != 0
    record = result.read(target)
    reference, slow = record["results"]
    assert len(reference["launches"][0]["samples"]) == 1
    assert slow["launches"][0]["samples"] == []
    assert slow["learn"]["curves"][0]["total_steps"] == 3000
    assert not slow["learn"]["curves"][0]["finished"]
    assert record["failures"] == []
    assert "cut short" in out
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_fails_at_the_end_still_shows_what_was_measured(
    bench_learn: Callable[..., Outcome],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, record: object) -> None:
        raise MachineError("--json: no space left")

    monkeypatch.setattr(result, "write", full)

    with pytest.raises(MachineError, match="no space left"):
        bench_learn("--seeds", "1", reference=learner())

    assert "491" in capsys.readouterr().out


@pytest.mark.slow
def test_fastppo_and_the_reference_really_learn_a_little(tmp_path: Path) -> None:
    target = tmp_path / "learn.json"
    words = ["CartPole-v1", "--seeds", "2", "--total-timesteps", "20480", "--threshold", "60"]

    assert learn.run(arguments.read(Args, [*words, "--json", str(target)], "learn")) == 0

    record = result.read(target)
    assert {one["impl"] for one in record["results"]} == {"fastppo", "reference"}
    for entry in record["results"]:
        detail = entry["learn"]
        assert detail["mismatch"] == []
        assert detail["to_threshold"]["reached"] == 2
        assert detail["final_iqm"]["value"] > detail["curves"][0]["first_return"]
        # reset rows are no env steps
        assert 0.9 * 20480 < detail["curves"][0]["total_steps"] < 20480
