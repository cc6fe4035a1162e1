"""The command line: what it resolves, and how it answers a mistake: one line, no traceback."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from fastppo import __version__, checkpoint, cli, foreign, presets
from fastppo.config import Config
from fastppo.run import session

Command = Callable[..., Any]
TINY = [
    *("--total-timesteps", "256", "--num-envs", "4", "--num-steps", "32", "--update-epochs", "1"),
    *("--device", "cpu", "--backend", "torch"),
]


def refused(command: Command, *args: object, code: int = 2) -> str:
    """The message of a command that must fail: one line on stderr, nothing on stdout."""
    outcome = command(*args)

    assert outcome.code == code
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err
    prefix, _, message = outcome.err.strip().partition("fastppo: error: ")
    assert prefix == ""
    return str(message)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["CartPol-v1"], ["env_id: 'CartPol-v1'", "did you mean", "CartPole-v1"]),
        (["pong-v5"], ["env_id: 'pong-v5'", "did you mean", "Pong-v5"]),
        (["zzzzzzzzzz"], ["env_id: 'zzzzzzzzzz'", "fastppo doctor --envs"]),
        ([], ["env_id: missing", "CartPole-v1"]),
        (["D1Basic-v1"], ["env_id: 'D1Basic-v1'", "unbounded action", "doctor --envs"]),
        (["PointMaze_UMaze-v3"], ["env_id: ", "dict observation", "doctor --envs"]),
        (["FrozenLake-v1"], ["env_id: ", "Discrete is not a Box", "doctor --envs"]),
        (
            ["CartPole-v1", "--num-minibatches", "7"],
            ["num_minibatches: 7", "does not divide", "1024", "such as 8"],
        ),
        (["CartPole-v1", "--learning-rate", "-0.001"], ["learning_rate: -0.001", "above 0"]),
        (["CartPole-v1", "--gamma", "nan"], ["gamma: nan", "finite number"]),
        (["CartPole-v1", "--gamma", "1.5"], ["gamma: 1.5", "[0, 1]"]),
        (["CartPole-v1", "--total-timesteps", "100"], ["total_timesteps: 100", "raise it"]),
        (["CartPole-v1", "--device", "tpu"], ["device: 'tpu'", "use auto, cpu, cuda"]),
        (["CartPole-v1", "--device", "mps"], ["device: 'mps'", "use auto, cpu, cuda"]),
        (["CartPole-v1", "--episodic-life"], ["episodic_life: True", "Atari", "CartPole-v1"]),
        (["CartPole-v1", "--frame-stack", "2"], ["frame_stack: 2", "Atari", "CartPole-v1"]),
        (["CartPole-v1", "--network", "nature_cnn"], ["network: 'nature_cnn'", "use mlp"]),
        (["CartPole-v1", "--max-episode-steps", "0"], ["max_episode_steps: 0", "above 0"]),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_leaves_no_folder(
    args: list[str], parts: list[str], command: Command
) -> None:
    message = refused(command, "train", *args)

    for part in parts:
        assert part in message
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(device: str, command: Command) -> None:
    message = refused(command, "train", "CartPole-v1", "--device", device)

    assert message == f"device: '{device}' asked for, and torch sees no GPU; use --device cpu"


def test_triton_on_a_cpu_is_refused(command: Command) -> None:
    args = ("CartPole-v1", "--backend", "triton", "--device", "cpu")

    message = refused(command, "train", *args)

    assert message.startswith("backend: 'triton' cannot serve: ")
    assert "numba" in message or "torch" in message


def test_run_directories_in_use_are_refused(
    run_copy: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    train = ("train", "CartPole-v1", *TINY, "--run-dir")

    assert "holds another run; go on with" in refused(command, *train, run_copy)
    assert "is a file; name a folder" in refused(command, *train, tmp_path / "file")
    assert "choose another folder" in refused(command, *train, tmp_path / "full")
    assert (tmp_path / "full" / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["train --resume", "eval"])
def test_a_folder_without_a_run_is_refused(name: str, command: Command, tmp_path: Path) -> None:
    message = refused(command, *name.split(), tmp_path / "none")

    assert message.startswith(f"run_dir: {tmp_path / 'none'} holds no run")


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("hello")
    else:
        torch.save({"epoch": 3, "state_dict": {}}, path)


@pytest.mark.parametrize("how", ["truncated", "text", "foreign"])
@pytest.mark.parametrize("name", ["train --resume", "eval"])
def test_a_damaged_or_foreign_checkpoint_is_refused_and_the_rest_left_alone(
    name: str, how: str, stopped_run: Path, command: Command
) -> None:
    newest = checkpoint.newest(stopped_run / "checkpoints")
    damage(newest, how)
    before = {path: path.read_bytes() for path in stopped_run.rglob("*") if path.is_file()}

    message = refused(command, *name.split(), stopped_run)

    assert message.startswith(f"checkpoint: {newest} ")
    assert "delete it to fall back on the one before" in message
    assert before == {path: path.read_bytes() for path in stopped_run.rglob("*") if path.is_file()}
    newest.unlink()  # the remedy works
    assert command("eval", stopped_run, "--episodes", "1").code == 0


def test_eval_of_a_run_without_checkpoints_names_the_command_that_begins_it(
    run_copy: Path, command: Command
) -> None:
    shutil.rmtree(run_copy / "checkpoints")

    message = refused(command, "eval", run_copy)

    assert message.startswith("checkpoint: none in ")
    assert message.rstrip().endswith(f"`fastppo train --resume {run_copy}`")


@pytest.mark.parametrize("name", ["train --resume", "eval"])
@pytest.mark.parametrize(
    ("text", "part"), [("{", "cannot be read"), ('{"config": {}}', "unknown or missing fields")]
)
def test_a_damaged_config_is_refused(
    name: str, text: str, part: str, run_copy: Path, command: Command
) -> None:
    (run_copy / "config.json").write_text(text)

    message = refused(command, *name.split(), run_copy)

    assert message.startswith(f"run_dir: {run_copy / 'config.json'} ")
    assert part in message


@pytest.mark.parametrize("name", ["train --resume", "eval"])
def test_an_edited_config_is_refused(name: str, stopped_run: Path, command: Command) -> None:
    record = json.loads((stopped_run / "config.json").read_text())
    record["config"]["gamma"] = 0.5
    (stopped_run / "config.json").write_text(json.dumps(record))

    message = refused(command, *name.split(), stopped_run)

    assert message.startswith("checkpoint: ")
    assert "belongs to another run than config.json" in message


@pytest.mark.parametrize(
    "extra", [["--gamma", "0.9"], ["--seed=1"], ["--no-anneal-lr"], ["CartPole-v1"]]
)
def test_settings_beside_resume_are_refused_even_where_they_equal_the_default(
    extra: list[str], stopped_run: Path, command: Command
) -> None:
    message = refused(command, "train", "--resume", stopped_run, *extra)

    assert message.startswith("resume: takes the run's own settings; leave out ")
    assert message.endswith(extra[0].partition("=")[0])


def test_a_checkpoint_of_another_run_is_refused(
    run_copy: Path, tmp_path: Path, tiny: Callable[..., Config], command: Command
) -> None:
    """The other run's network has the same shapes, so that nothing but the check can tell."""
    session.start(tiny(seed=2), tmp_path / "other", quiet=True)
    other = checkpoint.newest(tmp_path / "other" / "checkpoints")

    message = refused(command, "eval", run_copy, "--checkpoint", other)

    assert "belongs to another run than config.json" in message
    shutil.copy(other, run_copy / "checkpoints" / "00000007.pt")
    assert "belongs to another run" in refused(command, "train", "--resume", run_copy)


@pytest.mark.parametrize("episodes", ["0", "-3"])
def test_eval_of_no_episodes_is_refused(
    episodes: str, finished_run: Path, command: Command
) -> None:
    message = refused(command, "eval", finished_run, "--episodes", episodes)

    assert message == f"episodes: {episodes} must be above 0"


def test_eval_of_a_missing_checkpoint_is_refused(finished_run: Path, command: Command) -> None:
    message = refused(command, "eval", finished_run, "--checkpoint", "nowhere.pt")

    assert message == "checkpoint: nowhere.pt does not exist"


def test_doctor_for_an_unknown_task_is_refused(command: Command) -> None:
    assert "did you mean" in refused(command, "doctor", "CartPol-v1")


def test_unknown_command_is_refused(command: Command) -> None:
    known = ", ".join(dict.fromkeys(row.name.split()[0] for row in cli.COMMANDS))
    assert known.startswith("train, eval, tokens, doctor, bench, profile, ")
    assert refused(command, "trian") == f"command: 'trian' is unknown; use {known}"


@pytest.mark.parametrize(
    "args",
    [
        ["train", "CartPole-v1", "--gama", "0.9"],
        ["train", "CartPole-v1", "--gamma", "abc"],
        ["train", "CartPole-v1", "--num-envs", "1.5"],
        ["train", "CartPole-v1", "--backend", "cuda"],
        ["train", "CartPole-v1", "Pong-v5"],
        ["eval"],
        ["eval", "x", "--episodes", "many"],
        ["doctor", "--everything"],
    ],
)
def test_what_cannot_be_parsed_exits_with_2_and_names_the_argument(
    args: list[str], command: Command
) -> None:
    outcome = command(*args)

    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    wrong = {"doctor": "--everything", "eval": "RUN_DIR" if len(args) == 1 else "episodes"}
    named = wrong.get(args[0], args[2].removeprefix("--") if len(args) > 2 else "")
    assert named.lower() in outcome.err.lower()


def test_no_command_prints_the_usage(command: Command) -> None:
    assert command().code == 2
    outcome = command("--help")
    assert outcome.code == 0
    for name in ("train", "eval", "doctor", "bench"):
        assert f"\n  {name} " in outcome.out


def test_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version") == (0, f"fastppo {__version__}\n", "")


def test_help_of_train_explains_every_setting(command: Command) -> None:
    outcome = command("train", "--help")
    text = " ".join(outcome.out.replace("\u2502", " ").split())

    assert outcome.code == 0
    for field in fields(Config):
        flag = "ENV_ID" if field.name == "env_id" else f"--{field.name.replace('_', '-')}"
        assert flag in text, field.name


@pytest.mark.parametrize("width", ["80", "45"])
def test_help_of_train_is_in_groups_that_fit_the_window(
    width: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    lines = command("train", "--help").out.splitlines()
    titles = [line.strip("+-╭─ ╮") for line in lines]

    groups = ("task", "algorithm", "network", "normalisation", "atari", "machine", "logging", "run")
    assert [title for title in titles if re.fullmatch(r"\w+ options", title)] == [
        f"{group} options" for group in groups
    ]
    assert max(map(len, lines[4:])) <= int(width)


@pytest.mark.parametrize(
    ("flag", "answer"),
    [
        ("--lr", "--learning-rate"),
        ("--n-steps", "--num-steps"),
        ("--track", "--wandb online"),
        ("--env", "ENV_ID, the first word after the command"),
        ("--env-id=Pong-v5", "ENV_ID, the first word after the command"),
        ("--batch-size", "--num-minibatches, parts of the num_envs * num_steps rows of a rollout"),
        ("--ent", "--ent-coef"),
        ("--clip_range", "--clip-coef"),
        ("--save-model", "--checkpoint-interval; a checkpoint is always written at the end"),
        ("--wandb-project-name", "--wandb-project"),
    ],
)
@pytest.mark.parametrize("name", ["train", "profile"])
def test_a_flag_of_another_library_is_answered_with_ours(
    name: str, flag: str, answer: str, command: Command
) -> None:
    message = refused(command, name, "CartPole-v1", flag, "1")

    assert message == f"{flag.partition('=')[0]}: here it is {answer}"


def test_every_answer_names_a_flag_that_there_is(command: Command) -> None:
    text = command("train", "--help").out + command("eval", "--help").out
    for name in {**foreign.SETTINGS, **foreign.FLAGS}:
        answer = foreign.flag_answer(f"--{name}")
        assert answer is not None
        flag = answer.split()[0].rstrip(",;")
        assert flag in text, name
        assert name not in {field.name for field in fields(Config)} - {"env_id"}


def test_profile_has_no_flag_that_it_cannot_use(command: Command) -> None:
    text = command("profile", "--help").out

    assert "--num-envs" in text
    for flag in ("--checkpoint-interval", "--wandb-project", "--tensorboard", "--eval-interval"):
        assert flag not in text
        assert "unknown option" in refused(command, "profile", "CartPole-v1", flag, "1")


@pytest.mark.parametrize(
    ("env_id", "preset"),
    [("CartPole-v1", "classic"), ("Hopper-v4", "mujoco"), ("Pong-v5", "atari")],
)
def test_show_config_prints_the_resolved_config_and_starts_nothing(
    env_id: str, preset: str, command: Command
) -> None:
    outcome = command("train", env_id, "--show-config", "--seed", "5", "--gamma", "0.5")

    shown = Config.from_dict(json.loads(outcome.out))
    typed: dict[str, Any] = {"env_id": env_id, "preset": preset, "seed": 5, "gamma": 0.5}
    assert outcome.code == 0
    assert shown == Config(**(presets.PRESETS[preset] | typed))
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_preset_can_be_named(preset: str, command: Command) -> None:
    outcome = command("train", "Pong-v5", "--preset", preset, "--show-config")

    shown = json.loads(outcome.out)
    assert shown["preset"] == preset
    for field, value in presets.PRESETS[preset].items():
        assert shown[field] == value


def test_what_is_typed_wins_over_the_preset_even_where_it_equals_the_plain_default(
    command: Command,
) -> None:
    """The Atari preset learns from episodic lives; the plain default does not."""
    outcome = command("train", "Pong-v5", "--no-episodic-life", "--clip-coef=0.2", "--show-config")

    shown = json.loads(outcome.out)
    assert shown["episodic_life"] is False
    assert shown["clip_coef"] == 0.2


def test_train_eval_and_resume_work_together(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "run"

    trained = command("train", "CartPole-v1", *TINY, "--run-dir", path)
    played = command("eval", path, "--episodes", "2")
    again = command("train", "--resume", path)

    assert (trained.code, played.code, again.code) == (0, 0, 0)
    assert trained.out.splitlines()[-2:] == [
        f"next: fastppo eval {path} --episodes 20", f"look: fastppo report {path}"
    ]  # fmt: skip
    assert played.out.startswith("CartPole-v1: return ")
    assert "over 2 episodes" in played.out
    assert "is complete: 2 updates" in again.out
    assert trained.err == played.err == again.err == ""


def test_quiet_prints_nothing(command: Command, tmp_path: Path) -> None:
    args = ("train", "CartPole-v1", *TINY, "--quiet", "--run-dir", tmp_path / "run")

    assert command(*args) == (0, "", "")


def test_a_command_gets_its_arguments_and_gives_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def run(args: Any) -> int:
        seen.append(args)
        return 4

    monkeypatch.setattr("fastppo.run.doctor.run", run)

    assert command("doctor", "Pong-v5").code == 4
    assert [args.env_id for args in seen] == ["Pong-v5"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train CartPole-v1 --nonsense 3", "--nonsense: unknown option"),
        (
            "train CartPole-v1 --learning-rat 3",
            "--learning-rat: unknown option; perhaps --learning-rate",
        ),
        ("train CartPole-v1 Pong-v5", "Pong-v5: more than the command takes"),
        ("train CartPole-v1 --num-envs x", "--num-envs: 'x' must be a whole number"),
        ("train CartPole-v1 --gamma x", "--gamma: 'x' must be a number"),
        ("train CartPole-v1 --num-envs", "--num-envs: missing its value"),
        ("train CartPole-v1 --engine x", "--engine: 'x' is not one of"),
        ("train --nonsense", "--nonsense: unknown option"),
        ("eval", "RUN_DIR: missing (Folder of the run)"),
        ("gpu-check", "--out: missing (Gets gpu-check.json"),
        ("compare a", "B.json: missing"),
        ("bench train --pairs 3", "--pairs: is called --rounds now"),
        ("bench learn CartPole-v1 --preset=wide", "--preset: is called --recipe now"),
        ("bench", None),
        ("bench peers", None),
        ("bench nonsense", "bench: 'nonsense' is unknown; use train, learn"),
        ("bench peers nonsense", "bench peers: 'nonsense' is unknown; use install, list"),
        (
            "nonsense",
            "command: 'nonsense' is unknown; use train, eval, tokens, doctor, bench, profile",
        ),
        ("bench env", "env_id: missing"),
        ("bench learn", "env_id: missing"),
        ("report", "FILE: missing"),
        ("track push", "FILE: missing"),
    ],
)
@pytest.mark.parametrize("width", ["40", "200"])
def test_a_mistake_of_usage_is_one_line_in_any_window(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: str, told: str | None, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)

    code, out, err = command(*words.split())

    assert code == 2
    if told is None:
        assert out.startswith("usage: fastppo ")
    else:
        assert out == ""
        assert err.startswith(f"fastppo: error: {told}")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        *(("bench", name) for name in ("train", "learn", "env", "kernels", "peers")),
        *((name,) for name in ("bench", "profile", "compare", "report", "track")),
    ],
)
def test_every_command_of_the_suite_is_wired(command: Command, words: tuple[str, ...]) -> None:
    told = command(*words, "--help")

    assert told.code == 0
    assert f"fastppo {' '.join(words)}" in told.out
    assert told.err == ""


def test_python_m_fastppo_is_the_same_command(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.run(
        [sys.executable, "-m", "fastppo", "train", "CartPol-v1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
        check=False,
    )

    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith("fastppo: error: env_id: 'CartPol-v1' is no EnvPool task")
    assert process.stderr.count("\n") == 1


def test_help_shows_the_defaults_of_the_environment(command: Command) -> None:
    general, atari = command("train", "--help"), command("train", "Pong-v5", "--help")

    assert general.code == atari.code == 0
    assert "--clip-coef" in general.out
    assert "(default: 0.1)" not in general.out
    assert "(default: 0.1)" in atari.out


def test_the_last_lines_are_commands_that_work_as_they_are_pasted(tmp_path: Path) -> None:
    """By the path of the program as it was called, of a folder with a blank, offline W&B."""
    program = Path(sys.executable).parent / "fastppo"
    if not program.exists():
        pytest.skip("fastppo is not installed as a program")
    folder = tmp_path / "a run"
    words = [str(program), "train", "CartPole-v1", "--run-dir", str(folder), *TINY]
    env = os.environ | {"PATH": "/usr/bin:/bin"}

    words += ["--wandb", "offline"]
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, check=True)

    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert said["upload"] == f"{program} track sync '{folder}'"
    for name in ("next", "look"):
        assert said[name].startswith(f"{program} ")
        again = subprocess.run(said[name], shell=True, capture_output=True, text=True, env=env)
        assert again.returncode == 0, again.stderr
