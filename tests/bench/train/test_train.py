"""`fastppo bench train`: what it counts, what it books, what it says to mistakes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastppo import cli
from fastppo.bench import recipes
from fastppo.bench.launch import implementations
from fastppo.bench.launch.measure import Effort, Measurement
from fastppo.bench.results import result
from fastppo.bench.train import entries
from fastppo.errors import UserError

PROGRAMS = Path(__file__).parents[1] / "programs"
SHORT = Effort(seconds=0.3, rounds=2, launches=1, warmup_s=0.0, tune=False)


def bench(*arguments: str) -> int:
    return cli.main(["bench", "train", *arguments])


def measured(*names: str, effort: Effort = SHORT, **options: Any) -> Measurement:
    config = recipes.config_for("CartPole-v1", "paper")
    chosen = implementations.parse(names)
    measurement = Measurement(config, chosen, effort, **{"base": chosen[0].name, **options})
    measurement.run()
    assert measurement.failures == {}
    return measurement


def test_rates_agree_with_the_environments_own_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Within 3%: steps counted by EnvPool's ids over the child's clock, against the parent's."""
    monkeypatch.chdir(PROGRAMS)
    monkeypatch.setenv("FASTPPO_TEST_LOG", str(tmp_path / "log"))
    (run,) = measured("counted=counted:fastppo").runs["counted"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    last = len(run.durations) - 1
    before = last - sum(one.updates for one in run.slices)
    (t0, steps0), (t1, steps1) = lines[before], lines[last]
    reported = sum(one.env_steps for one in run.slices)

    assert reported == steps1 - steps0
    rate = reported / sum(one.seconds for one in run.slices)
    assert rate == pytest.approx((steps1 - steps0) / (t1 - t0), rel=0.03)


def test_phases_sum_to_the_wall_time() -> None:
    """Within 2%: the children's own bookings against the parent's clock, pauses left out.

    A parent that gets no core reads a line late, so a busy machine has three tries.
    """
    for _ in range(3):
        found = measured("fastppo,reference", base="reference")
        booked = []
        for entry in entries.entries(found):
            phases = dict(entry["train"]["phases"])
            booked.append(phases.pop("wall") / sum(phases.values()))
            assert phases["env"] > 0
            assert phases["update"] > 0
        if booked == pytest.approx([1.0, 1.0], abs=0.02):
            break

    assert booked == pytest.approx([1.0, 1.0], abs=0.02)
    ours = next(e for e in entries.entries(found) if e["impl"] == "fastppo")
    assert set(ours["train"]["ceilings"]) == {"envpool", "rollout", "update"}
    assert ours["train"]["shares"]["envpool"] < 1.0


@pytest.mark.slow
def test_a_fifth_more_work_is_seen_and_the_same_work_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(PROGRAMS)
    effort = Effort(seconds=0.5, rounds=16, launches=2, warmup_s=2.0, tune=False)
    found = measured("fastppo,again=fastppo,slower=counted:slower", effort=effort)
    ratios = {e["impl"]: e["train"]["ratio"] for e in entries.entries(found)}

    assert ratios["again"]["low"] <= 1.0 <= ratios["again"]["high"]
    assert ratios["slower"]["high"] < 1.0
    assert ratios["slower"]["low"] < 1 / 1.2 < ratios["slower"]["high"] + 0.05


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--impl", "fastpo"],
            "--impl: 'fastpo' is unknown; there are fastppo, fastppo-eager, fastppo-graph,",
        ),
        (["--impl", "fastppo,fastppo"], "--impl: 'fastppo' is there twice"),
        (["--impl", "a b=c"], "--impl: 'a b' is not a name"),
        (["--impl", "mine=/no/such program"], "--impl: mine: '/no/such' is not a program"),
        (["--impl", ","], "--impl: "),
        (["--base", "sb3", "--impl", "fastppo"], "--base: 'sb3' is not measured"),
        (["--recipe", "huge"], "--recipe: 'huge' is unknown; there are paper, wide, and NxT"),
        (["--recipe", "3x5"], "--recipe: 3x5: num_minibatches: 4 does not divide"),
        (["--seconds", "0"], "--seconds: 0.0 must be a finite number above 0"),
        (["--seconds", "nan"], "--seconds: nan must be"),
        (["--rounds", "0"], "--rounds: 0 must be at least 1"),
        (["--rounds", "2", "--launches", "3"], "--launches: 3 is more than --rounds 2"),
        (["--cores", "0,9999"], "--cores: '0,9999' cannot be had"),
        (["--json", "/no/such/x.json"], "--json: /no/such is not a folder"),
        (["--html", "/proc"], "--html: /proc is a folder"),
        (["--parity", "/no/such.json"], "/no/such.json: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    arguments: Sequence[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(Measurement, "run", lambda _: pytest.fail("measured"))

    assert bench("CartPole-v1", *arguments) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"fastppo: error: {told}")
    assert error.count("\n") == 1


def test_an_unknown_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    assert bench("CartPol-v1", "--impl", "fastppo") == 2
    assert "did you mean CartPole-v1" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTPPO_PEERS", str(tmp_path))
    missing, ours = implementations.parse(["sb3,fastppo"])

    assert missing.missing is not None
    assert "fastppo bench peers install sb3" in missing.missing
    assert ours.missing is None


def test_where_everything_failed_the_report_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier report left in its place would be taken for this one."""
    report = tmp_path / "r.md"
    report.write_text("fastppo trains 2 times as fast")

    assert bench("CartPole-v1", "--quick", "--impl", "mine=false now", "--md", str(report)) == 3

    assert report.read_text().startswith("**1 could not be measured.**")
    assert "mine on train/CartPole-v1/8x128 could not be measured" in " ".join(
        capsys.readouterr().out.split()
    )


def test_no_peers_is_no_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTPPO_PEERS", str(tmp_path))
    names = [one.name for one in implementations.parse(["fastppo,reference,peers"])]

    assert names == ["fastppo", "reference"]


def test_a_command_line_keeps_its_commas() -> None:
    (mine,) = implementations.parse([f"mine={sys.executable} -c 'print(1, 2)'"])

    assert mine.command == [sys.executable, "-c", "print(1, 2)"]


def test_the_standard_set_in_both_recipes() -> None:
    found = [f"{c.env_id} {recipes.label(c)}" for c in recipes.workloads([], [])]

    assert found == [
        "CartPole-v1 8x128",
        "CartPole-v1 64x128",
        "HalfCheetah-v4 8x256",
        "HalfCheetah-v4 64x64",
        "Ant-v4 8x256",
        "Ant-v4 64x64",
        "Pong-v5 8x128",
        "Pong-v5 64x32",
        "Breakout-v5 8x128",
        "Breakout-v5 64x32",
    ]
    atari = recipes.config_for("Pong-v5", "paper")
    assert (atari.num_minibatches, atari.update_epochs) == (4, 4)


def test_an_unfit_size_is_refused() -> None:
    with pytest.raises(UserError, match="--recipe: 0x5: num_envs: 0 must be above 0"):
        recipes.config_for("CartPole-v1", "0x5")


def interrupted(number: int, json_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a benchmark of three tasks and stops it in the second one."""
    # a shell's background job ignores SIGINT and hands that on; a handler it cannot hand on
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "fastppo.bench", "train", "CartPole-v1", "Pendulum-v1"]
    options = ["--impl", "fastppo", "--quick", "--seconds", "0.05", "--json", str(json_path)]
    try:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not json_path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL],
)
def test_a_stopped_run_leaves_a_valid_file(number: int, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    ended = interrupted(number, path)

    found = result.read(path)["results"]
    assert found[0]["id"] == "train/CartPole-v1/8x128"
    assert "Traceback" not in ended.stderr
    if number != signal.SIGKILL:
        assert ended.returncode == 128 + number
        assert "CartPole-v1" in ended.stdout or ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no JSON"),
        ('{"schema": "fastppo.result/1", "kind"', "is no JSON .*cut short"),
        ("[]", "schema is None and not 'fastppo.result/1'; name a result file"),
        ('{"schema": "fastppo.result/9"}', "schema is 'fastppo.result/9'.*that wrote it"),
        ('{"schema": "fastppo.result/1"}', "breaks fastppo.result/1"),
    ],
)
def test_a_damaged_result_file_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)

    with pytest.raises(UserError, match=told) as error:
        result.read(path)

    assert "\n" not in str(error.value)


def test_result_files_round_trip_and_keep_what_they_do_not_know(tmp_path: Path) -> None:
    record = result.new("kernel", [], note={"nan": float("nan"), "tuple": (1, 2)})
    path = tmp_path / "x.json"
    result.write(path, record)
    again = result.read(path)

    assert again["note"] == {"nan": None, "tuple": [1, 2]}
    assert {k: v for k, v in again.items() if k not in ("note", "digest")} == {
        k: v for k, v in record.items() if k != "note"
    }
    assert not list(tmp_path.glob("*.part"))
