"""`fastppo profile`: the trace is read right, the phases add up, and the verdict turns."""

import gzip
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastppo import cli, envs, settings
from fastppo.bench.profile import command as profile
from fastppo.bench.profile import run as profile_run
from fastppo.bench.profile import session as profile_session
from fastppo.bench.profile import verdict
from fastppo.bench.profile.args import Args
from fastppo.bench.profile.run import Profile
from fastppo.bench.profile.session import Update
from fastppo.bench.profile.trace import Operator, Trace
from fastppo.bench.report import command as report
from fastppo.bench.report.terminal import print_results
from fastppo.bench.results import result
from fastppo.config import Config
from fastppo.errors import Interrupted, UserError
from fastppo.signals import StopRequest
from fastppo.threads import ThreadPlan


def main(words: list[str]) -> int:
    return profile.run(settings.resolve(Args, words, "fastppo profile"))


@pytest.fixture(autouse=True)
def _quick_and_threads_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(profile_run, "ENV_SECONDS", 0.02)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def measured(folder: Path, **changes: Any) -> Profile:
    sizes = {"num_envs": 4, "num_steps": 32, "num_minibatches": 1, "update_epochs": 2}
    config = Config(env_id="CartPole-v1", device="cpu", **(sizes | changes))
    with StopRequest() as stop:
        return profile_run.measure(config, 2, folder, stop)


def test_a_slow_environment_is_called_env_bound_and_phases_sum_to_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = envs.VecEnv.step

    def slow_step(self: envs.VecEnv, actions: Any) -> envs.StepResult:
        time.sleep(0.005)
        return step(self, actions)

    monkeypatch.setattr(envs.VecEnv, "step", slow_step)

    found = measured(tmp_path)

    facts = found.facts()
    assert verdict.bound(facts) == "env"
    assert "Env-bound" in verdict.paragraph(facts)
    # EnvPool alone was not slowed: the verdict must not blame it
    assert "lost around EnvPool" in verdict.paragraph(facts)
    for update in found.plain:
        assert update.phases["env"] >= 32 * 0.005
        assert sum(update.phases.values()) == pytest.approx(update.wall_s, rel=0.02)
    assert sum(facts.split.values()) == pytest.approx(facts.wall_s)
    assert found.trace.phases["env"] == pytest.approx(
        sum(update.phases["env"] for update in found.profiled), rel=0.05
    )


def test_a_big_network_is_called_compute_bound(tmp_path: Path) -> None:
    found = measured(tmp_path, hidden_sizes=(2048, 2048), num_steps=64)

    facts = found.facts()
    assert verdict.bound(facts) == "compute", facts.split
    # acting, and forward and twice that backward of both epochs, of two trunks; no gradient of
    # the observation is needed, and small layers are left out of the count here
    forward = 2 * 2 * 2048 * 2048 * 4 * 64
    assert found.flops == pytest.approx(forward * (1 + 2 * 3), rel=0.05)
    assert facts.flops / facts.product_s < 3 * facts.matmul_flops_per_s
    for update in found.plain:
        assert sum(update.phases.values()) == pytest.approx(update.wall_s, rel=0.02)


def test_a_tiny_network_is_called_dispatch_bound(tmp_path: Path) -> None:
    found = measured(tmp_path, hidden_sizes=(4,), num_minibatches=16)

    assert verdict.bound(found.facts()) == "dispatch", found.facts().split
    assert found.trace.operators["fastppo::gae"].calls == 2
    assert found.trace.operators["fastppo::clip_adam_"].calls == 2 * 2 * 16
    assert found.memory["allocator"] > 0
    assert found.memory["process"] > found.memory["allocator"]


SMALL = ["CartPole-v1", "--device", "cpu", "--num-envs", "4", "--num-steps", "32",
         "--num-minibatches", "2", "--updates", "1"]  # fmt: skip


def test_a_real_run_prints_80_columns_and_leaves_both_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    reports = ["--html", "page.html", "--junit", "junit.xml"]
    assert main([*SMALL, "--out", "here", *reports]) == 0

    assert "CartPole-v1" in Path("page.html").read_text()
    assert "CartPole-v1" in Path("junit.xml").read_text()
    out, err = capfd.readouterr()
    print_results([result.read(Path("here/profile.json"))])
    printed = capfd.readouterr().out
    assert err == ""
    assert out.startswith(printed)
    assert len(out[len(printed) :].splitlines()) == 4  # where the files are
    assert max(map(len, out.splitlines())) <= 80
    assert "-bound: " in out
    assert "none, no GPU" in out
    assert {path.name for path in Path("here").iterdir()} == {"trace.json.gz", "profile.json"}
    with gzip.open("here/trace.json.gz") as file:
        names = {event["name"].partition(" [")[0] for event in json.load(file)["traceEvents"]}
    assert {"fastppo:env", "fastppo:update", "fastppo::gae", "aten::addmm"} <= names
    record = result.read(Path("here/profile.json"))
    (entry,) = record["results"]
    assert entry["id"] == "profile/CartPole-v1/4x32"
    detail = entry["profile"]
    phases = detail["phases"]
    assert sum(phases.values()) - phases["wall"] == pytest.approx(phases["wall"], rel=0.02)
    assert " ".join(detail["verdict"].split()) in " ".join(out.split())
    # an older file, without the time under the profiler, is shown everywhere, too
    del detail["profiled_wall_s"]
    for make in (report.html, report.markdown, report.junit):
        assert "env_steps/s" in make([record]) or "env steps/s" in make([record])
    assert "aten::addmm" in report.html([record])
    assert detail["bound"] in detail["split"]


def test_settings_are_those_of_fastppo_train(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["HalfCheetah-v4", "--num-envs", "64", "--hidden-sizes", "32", "32"]
    assert cli.main(["train", *words, "--show-config"]) == 0

    typed = settings.resolve(Args, [*words, "--updates", "5"], "x")
    config = settings.checked(typed, Config)

    assert config == Config.from_dict(json.loads(capsys.readouterr().out))
    assert typed.updates == 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "env_id: missing"),
        (["CartPole-v9"], "'CartPole-v9' is no EnvPool task"),
        (["CartPole-v1", "--engine", "mlp"], "engine: 'mlp' cannot be profiled"),
        (["CartPole-v1", "--updates", "0"], "updates: 0 must be at least 1"),
        (["CartPole-v1", "--num-minibatches", "7"], "num_minibatches: 7"),
        (["CartPole-v1", "--out", "a-file"], "a-file is a file"),
        (["CartPole-v1", "--out", "a-file/below"], "a-file is a file"),
    ],
)
def test_bad_input_is_told_before_anything_runs(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    monkeypatch.setattr(profile_run, "measure", lambda *_: pytest.fail("measured"))

    with pytest.raises(UserError) as error:
        main(words)

    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_permission_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profile_run, "measure", lambda *_: pytest.fail("measured"))

    for place in ("/proc/new", "/proc/version"):  # where even root may not write
        with pytest.raises(UserError, match="--out: "):
            main(["CartPole-v1", "--out", place])


def test_an_interrupt_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    traced = profile_session.traced_update

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return traced(*args, **kwargs)

    monkeypatch.setattr(profile_run, "traced_update", interrupted)

    with pytest.raises(Interrupted) as stopped:
        main([*SMALL, "--out", str(tmp_path / "new")])

    assert stopped.value.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_keeps_the_rounds_that_were_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed, calls = profile_session.timed_update, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # two of each round, after one that measures memory
            os.kill(os.getpid(), signal.SIGTERM)
        return timed(*args)

    monkeypatch.setattr(profile_session, "timed_update", interrupted)
    monkeypatch.setattr(profile_run, "timed_update", interrupted)
    folder = tmp_path / "new"

    with pytest.raises(Interrupted):
        main([*SMALL, "--updates", "9", "--out", str(folder)])

    (entry,) = result.read(folder / profile.RECORD)["results"]
    assert len(entry["launches"][0]["samples"]) == 1
    assert {len(rates) for rates in entry["profile"]["ceilings"].values()} == {1}
    assert (folder / profile.TRACE).exists()
    assert "1 of 9 updates are kept" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_tables_fit_80_columns(device: str, terminal: bool) -> None:
    """The GPU's layout with made-up numbers: no GPU was at hand."""
    names = ["autograd::engine::evaluate_function: ConvolutionBackward0", "aten::mm", "short"]
    operators = {n: Operator("product", 12_345, 1.5e6, 1.5e6) for n in names}
    trace = Trace(operators=operators, calls=98_765, launches=45_678, syncs=1234, busy_s=0.2)
    trace.copies = {kind: [12_345, 10**9] for kind in ("host", "HtoD", "DtoH", "DtoD")}
    phases = dict.fromkeys(("env", "policy", "copy", "gae", "update", "other"), 1.234)
    update = Update(env_steps=8192, wall_s=7.404, phases=phases)
    found = Profile(
        config=Config(env_id="HalfCheetah-v4", num_envs=64, num_steps=128),
        device=torch.device(device), backend="triton", plan=ThreadPlan(128, 128), frame_skip=5,
        uses_cnn=False, plain=[update], profiled=[update],
        ceilings={"envpool": [1e6], "matmul": [6e13], "copy": [3e12]}, traces=[trace],
        flops=10**12, memory={"allocator": 10**10, "process": 10**10},
    )  # fmt: skip
    out = io.StringIO()

    console = Console(file=out, force_terminal=terminal, width=80, color_system=None)
    print_results([result.new("profile", [profile.entry(found)])], console)

    assert [line for line in out.getvalue().splitlines() if len(line.rstrip()) > 80] == []
    assert terminal or out.getvalue().isascii()
    assert ("HtoD" in out.getvalue()) == (device == "cuda")
