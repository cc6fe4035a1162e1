"""A run from a file of settings: the file goes before the preset, what is typed before both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
TOML = 'env_id = "CartPole-v1"\nnum_envs = 4\nlearning_rate = 1\nhidden_sizes = [8, 9]\n'
YAML = "env_id: CartPole-v1\nnum_envs: 4\nlearning_rate: 1\nhidden_sizes: [8, 9]\n"
JSON = json.dumps(
    {"env_id": "CartPole-v1", "num_envs": 4, "learning_rate": 1, "hidden_sizes": [8, 9]}
)


def resolved(command: Command, *words: object) -> dict[str, Any]:
    outcome = command("train", *words, "--show-config")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", TOML), ("a.yaml", YAML), ("a.yml", YAML), ("a.json", JSON)]
)
def test_every_format_says_the_same(name: str, text: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)

    found = resolved(command, "--config", tmp_path / name)

    assert (found["env_id"], found["num_envs"], found["learning_rate"]) == ("CartPole-v1", 4, 1.0)
    assert found["hidden_sizes"] == [8, 9]
    assert found["norm_reward"]  # of the preset that fits


def test_yaml_may_write_powers_of_ten(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("env_id: CartPole-v1\nlearning_rate: 3e-4\nadam_eps: 1E-5\n")

    found = resolved(command, "--config", tmp_path / "a.yaml")

    assert (found["learning_rate"], found["adam_eps"]) == (3e-4, 1e-5)


def test_what_is_typed_goes_before_the_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)

    found = resolved(command, "--config", tmp_path / "a.toml", "--num-envs", "2", "Pendulum-v1")

    assert (found["env_id"], found["num_envs"], found["gamma"]) == ("Pendulum-v1", 2, 0.9)


def test_what_is_shown_can_be_read_again(command: Command, tmp_path: Path) -> None:
    first = resolved(command, "Pong-v5", "--num-envs", "2", "--wandb-tags", "a", "b")
    for name in ("a.json", "a.toml", "a.yaml", "a"):
        (tmp_path / name).write_text(json.dumps(first, indent=2))

        assert resolved(command, "--config", tmp_path / name) == first
    assert first["wandb_tags"] == ["a", "b"]


def test_a_run_can_be_repeated_from_its_own_file(
    command: Command, tmp_path: Path, finished_run: Path
) -> None:
    words = ("--config", finished_run / "config.json", "--run-dir", tmp_path / "again")
    assert command("train", *words).code == 0

    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (finished_run, tmp_path / "again")
    )
    assert [row["loss/policy_loss"] for row in ours] == [row["loss/policy_loss"] for row in theirs]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "num_envs = ", "a.toml cannot be read (Invalid value"),
        ("a.yaml", "a: [", "a.yaml cannot be read (while parsing"),
        ("a.json", "{", "a.json cannot be read ("),
        ("a.json", "\udcff", "a.json cannot be read ("),
        ("a.json", "[1]", "a.json holds no settings"),
        ("a.toml", "lr = 1", "a.toml: lr: here it is learning_rate"),
        ("a.toml", "num_env = 1", "a.toml: num_env: is no setting; did you mean num_envs"),
        ("a.toml", 'num_envs = "8"', "a.toml: num_envs: '8' must be int"),
        ("a.toml", "num_envs = 1.5", "a.toml: num_envs: 1.5 must be int"),
        ("a.toml", "norm_adv = 1", "a.toml: norm_adv: 1 must be bool"),
        ("a.toml", "wandb_tags = [1]", "a.toml: wandb_tags: (1,) must be a tuple of str"),
        ("a.toml", "seed = 1", "env_id: missing"),
        ("a.toml", 'env_id = "CartPole-v1"\ngamma = 2', "gamma: 2.0 must be in [0, 1]"),
        ("gone.toml", None, "gone.toml"),
    ],
)
def test_a_mistake_in_it_is_one_line(
    name: str, text: str | None, message: str, command: Command, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, errors="surrogateescape")

    outcome = command("train", "--config", tmp_path / name)

    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_a_run_that_goes_on_takes_none(command: Command, finished_run: Path) -> None:
    outcome = command("train", "--resume", finished_run, "--config", finished_run / "config.json")

    assert outcome.code == 2
    assert "resume: takes the run's own settings; leave out --config" in outcome.err
