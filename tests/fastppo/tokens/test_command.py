"""`fastppo tokens`: what a run leaves, how it goes on, and how it answers a mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from token_runs import TINY, make_config

from fastppo import checkpoint
from fastppo.run.rundir import RunDir
from fastppo.token_config import TokenConfig
from fastppo.tokens import command as tokens

Command = Callable[..., Any]
FLAGS = {name: value for name, value in TINY.items() if name != "env_id"}
WORDS = [
    word for name, value in FLAGS.items() for word in (f"--{name.replace('_', '-')}", str(value))
]


@pytest.fixture(scope="session")
def token_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six updates; not to be written to."""
    return tokens.start(make_config(), tmp_path_factory.mktemp("tokens") / "run", quiet=True)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def refused(outcome: Any) -> str:
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err
    return str(outcome.err.strip().removeprefix("fastppo: error: "))


def test_a_run_leaves_what_a_run_of_train_leaves(token_run: Path) -> None:
    rows = rows_of(token_run)
    opened = RunDir.open(token_run)

    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert opened.read_any_config() == make_config()
    assert opened.read_record()["tokens"]["vocabulary"] == 10  # eight letters, >, and the end
    for name in ("episode/return", "episode/exact_match", "loss/ref_kl", "loss/approx_kl",
                 "env_steps_per_s", "time/update", "time/logging"):  # fmt: skip
        assert all(name in row for row in rows), name
    names = sorted(path.name for path in (token_run / "checkpoints").iterdir())
    assert names == ["00000002.pt", "00000004.pt", "00000006.pt", "reference.pt"]
    assert sum(row["env_steps"] for row in rows) == rows[-1]["global_step"]


def test_samples_are_kept_as_text(token_run: Path) -> None:
    lines = [json.loads(line) for line in (token_run / "samples.jsonl").read_text().splitlines()]

    assert sorted({line["update"] for line in lines}) == [1, 3, 6]
    assert all(line["prompt"].endswith(">") for line in lines)
    last = rows_of(token_run)[-1]["episode/return"]
    shown = [line["score"] for line in lines if line["update"] == 6]
    assert len(shown) == 8
    assert sum(shown) / 8 == pytest.approx(last)


def test_the_reference_is_the_model_that_ppo_began_with(token_run: Path) -> None:
    kept = checkpoint.load(token_run / "checkpoints" / "reference.pt")
    last = checkpoint.load(token_run / "checkpoints" / "00000006.pt")

    assert kept["update"] == 0
    assert any((kept["policy"][name] != last["policy"][name]).any() for name in kept["policy"])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    token_run: Path, tmp_path: Path, command: Command
) -> None:
    stopped = shutil.copytree(token_run, tmp_path / "run")
    (stopped / "checkpoints" / "00000006.pt").unlink()

    assert command("tokens", "--resume", stopped, "--quiet").code == 0

    kept = ("global_step", "episode/return", "loss/loss", "loss/ref_kl")
    ours, theirs = rows_of(stopped), rows_of(token_run)
    assert [{n: row[n] for n in kept} for row in ours] == [
        {n: row[n] for n in kept} for row in theirs
    ]


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(
    token_run: Path, tmp_path: Path, command: Command
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(token_run / "config.json", run)

    outcome = command("tokens", "--resume", run, "--quiet")

    assert outcome.code == 0
    assert "has no checkpoint yet: from the beginning" in outcome.err
    assert rows_of(run)[-1]["loss/loss"] == rows_of(token_run)[-1]["loss/loss"]


def test_a_complete_run_is_left_alone(token_run: Path, command: Command) -> None:
    assert "is complete: 6 updates" in command("tokens", "--resume", token_run).out


def test_the_command_line_trains_shows_samples_and_says_how_to_look(
    tmp_path: Path, command: Command
) -> None:
    outcome = command("tokens", "reverse", *WORDS, "--run-dir", tmp_path / "run")

    assert outcome.code == 0, outcome.err
    assert "learning the text: step 3/3" in outcome.out
    assert outcome.out.count("update ") == 6
    assert "exact match" in outcome.out
    assert "tokens/s" in outcome.out
    assert "' -> '" in outcome.out
    assert f"report {tmp_path / 'run'}" in outcome.out


@pytest.mark.parametrize("task", ["bandit", "lipogram"])
def test_the_other_tasks_train(task: str, tmp_path: Path) -> None:
    changes = dict(env_id=f"tokens/{task}", kl_coef=0.5, pretrain_steps=1)
    run = tokens.start(make_config(**changes), tmp_path / "run", quiet=True)

    measure = {"bandit": "total_variation", "lipogram": "e_rate"}[task]
    assert all(0.0 <= row[f"episode/{measure}"] <= 1.0 for row in rows_of(run))


def test_a_text_of_ones_own(tmp_path: Path, command: Command) -> None:
    text = tmp_path / "book.txt"
    text.write_text("Été, the sea rose.\nNo one saw it come.\n" * 20, encoding="utf-8")

    words = [*WORDS, "--text", text, "--run-dir", tmp_path / "run", "--quiet"]
    outcome = command("tokens", "lipogram", *words)

    assert outcome.code == 0, outcome.err
    record = RunDir.open(tmp_path / "run").read_record()
    assert record["config"]["text"] == str(text)
    assert record["tokens"]["vocabulary"] == len(set(text.read_text(encoding="utf-8")))
    (tmp_path / "run" / "checkpoints" / "00000006.pt").unlink()
    text.write_text(text.read_text(encoding="utf-8") + "More.\n" * 20)
    said = refused(command("tokens", "--resume", tmp_path / "run"))
    assert said.startswith(f"text: {text} is not what the run learned from")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "env_id: missing; name one of tokens/bandit, tokens/reverse, tokens/lipogram"),
        (["revers"], "env_id: 'revers' is not one of bandit, reverse, lipogram"),
        (["reverse", "--temperature", "0"], "temperature: 0.0 must be above 0"),
        (["reverse", "--num-minibatches", "7"],
         "num_minibatches: 7 does not divide num_envs = 256"),
        (["reverse", "--heads", "3"], "heads: 3 does not divide width = 128"),
        (["reverse", "--num-steps", "99"],
         "num_steps: 99 behind prompts of 6 tokens do not fit into the model's context of 64"),
        (["reverse", "--text", "README"], "text: "),
        (["bandit", "--num-steps", "2"], "num_steps: 2 must be 1"),
        (["bandit", "--kl-coef", "0"], "kl_coef: 0.0 must be above 0 for a bandit"),
        (["bandit", "--kl-estimator", "k2", "--norm-adv"], "norm_adv: True scales the rewards"),
        (["lipogram", "--clip-coef-high", "-1"], "clip_coef_high: -1.0 must not be negative"),
        (["lipogram", "--seeds", "0"], "seeds: 0 must be above 0"),
        (["lipogram", "--lr", "1"], "--lr: here it is --learning-rate"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    words: list[str], message: str, command: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    assert refused(command("tokens", *words)).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        (b"short", "5 characters are fewer than a window of 25"),
    ],
)
def test_a_text_that_cannot_serve_is_one_line(
    content: bytes, message: str, command: Command, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_bytes(content)
    words = [*WORDS, "--text", text, "--run-dir", tmp_path / "run"]

    said = refused(command("tokens", "lipogram", *words))

    assert said.startswith("text: ")
    assert message in said
    assert not (tmp_path / "run").exists()


def test_a_run_of_one_command_is_refused_by_the_other(
    token_run: Path, finished_run: Path, command: Command
) -> None:
    of_tokens = f"run_dir: {token_run} is a run of `fastppo tokens`; name one of `fastppo train`"

    assert refused(command("train", "--resume", token_run)) == of_tokens
    assert refused(command("eval", token_run)) == of_tokens
    said = refused(command("tokens", "--resume", finished_run))
    assert said.endswith("is a run of `fastppo train`; name one of `fastppo tokens`")


def test_a_folder_in_use_says_how_to_go_on(token_run: Path, command: Command) -> None:
    said = refused(command("tokens", "reverse", *WORDS, "--run-dir", token_run))

    assert f"tokens --resume {token_run}" in said


def test_settings_come_back_from_config_json(token_run: Path, command: Command) -> None:
    shown = command("tokens", "--config", token_run / "config.json", "--show-config")

    assert TokenConfig.from_dict(json.loads(shown.out)) == make_config()


def test_several_seeds_have_a_folder_each(tmp_path: Path, command: Command) -> None:
    words = ["--seeds", 2, "--jobs", 2, "--run-dir", tmp_path / "many"]
    outcome = command("tokens", "reverse", *WORDS, *words)

    assert outcome.code == 0, outcome.err
    assert len(rows_of(tmp_path / "many" / "seed-2")) == 6


def test_a_run_is_mirrored_and_reported(tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    words = [*WORDS, "--tensorboard", "--wandb", "offline", "--run-dir", run, "--quiet"]
    assert command("tokens", "reverse", *words).code == 0
    page = tmp_path / "page.html"

    outcome = command("report", run, "--html", page)

    assert outcome.code == 0, outcome.err
    for said in ("tokens reverse", "Exact match", "nats a token", "samples", " tokens (1 run)"):
        assert said in page.read_text()
    shown = command("report", run).out
    assert "update 6" in shown
    assert "&gt;" not in shown
    assert list((run / "tensorboard").iterdir())
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*WORDS, "--total-timesteps", str(32 * 5000), "--run-dir", str(run)]
    program = [sys.executable, "-m", "fastppo", "tokens", "reverse", *words]
    child = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    waited = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and time.monotonic() < waited:
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGTERM)
    _, said = child.communicate(timeout=60)

    assert child.returncode == 128 + signal.SIGTERM
    assert f"tokens --resume {run}" in said
    assert checkpoint.find(run / "checkpoints")[-1].stem == f"{len(rows_of(run)):08d}"


def test_no_environment_is_loaded() -> None:
    """Nor what only other commands need."""
    code = (
        "import sys; import fastppo.tokens.command; "
        "print([m for m in ('envpool', 'gymnasium', 'wandb', 'transformers', 'matplotlib', "
        "'torch._dynamo') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"
