"""Which tracker records, and in which mode."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.tracking import trackers as tracking
from fastppo.tracking import wandb_names, wandb_settings
from fastppo.tracking.trackers import make_tracker

Calls = Callable[[], list[dict[str, Any]]]
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def done(calls: Calls, what: str) -> list[dict[str, Any]]:
    return [call for call in calls() if call["do"] == what]


def test_disabled_leaves_wandb_alone(
    fake_wandb: Calls, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    assert make_tracker(tiny(), folder, {}).parts == ()
    assert list(folder.iterdir()) == []
    assert fake_wandb() == []


@pytest.mark.parametrize(("rank", "runs"), [("0", 1), ("1", 0), ("7", 0)])
def test_of_several_ranks_the_first_one_records(
    rank: str,
    runs: int,
    fake_wandb: Calls,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", rank)

    make_tracker(tiny(wandb="offline", tensorboard=True), tmp_path, {}).close(0)

    assert len(done(fake_wandb, "init")) == runs
    assert (tmp_path / "wandb.json").exists() == bool(runs)
    assert (tmp_path / "tensorboard").exists() == bool(runs)


def test_online_without_a_key_is_refused_before_anything_is_built(
    fake_wandb: Calls, tmp_path: Path, command: Callable[..., Any]
) -> None:
    outcome = command("train", "CartPole-v1", "--wandb", "online", "--run-dir", tmp_path / "run")

    assert outcome.code == 2
    assert outcome.err == (
        "fastppo: error: wandb: 'online' needs an API key; set WANDB_API_KEY or run `wandb login`,"
        " or record with offline\n"
    )
    assert not (tmp_path / "run").exists()
    assert fake_wandb() == []


@pytest.mark.parametrize(("key", "mode"), [("", "offline"), ("0" * 40, "online")])
def test_auto_is_online_where_there_is_a_key(
    key: str,
    mode: str,
    fake_wandb: Calls,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)

    make_tracker(tiny(wandb="auto"), tmp_path, {}).close(0)

    [init] = done(fake_wandb, "init")
    assert init["mode"] == mode
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"fastppo: wandb: recording {mode}")


@pytest.mark.parametrize("usual", ["offline", "disabled"])
def test_auto_heeds_wandb_mode_and_a_mode_asked_for_by_name_does_not(
    usual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", usual)

    assert wandb_names.mode_for("auto") == usual
    assert wandb_names.mode_for("online") == "online"


WANDB_ITSELF = """
import json, wandb
print(json.dumps(wandb.setup().settings.mode))
"""


@pytest.mark.parametrize(
    ("variables", "files", "mode"),
    [
        ({"WANDB_MODE": "dryrun"}, {}, "offline"),
        ({"WANDB_MODE": "run"}, {}, "online"),
        ({"WANDB_MODE": "OFFLINE"}, {}, "offline"),
        ({"WANDB_MODE": ""}, {}, "offline"),
        ({"WANDB_DISABLED": "true"}, {}, "disabled"),
        ({"WANDB_DISABLED": "false"}, {}, "online"),
        ({}, {"wandb/settings": "[default]\nmode = offline\n"}, "offline"),
        ({}, {"wandb/settings": "[default]\nmode = disabled\n"}, "disabled"),
        ({}, {".wandb/settings": "[default]\nmode = dryrun\n"}, "offline"),
        ({"WANDB_DIR": "w"}, {"w/wandb/settings": "[default]\nmode = offline\n"}, "offline"),
        ({}, {"home/.config/wandb/settings": "[default]\nmode: offline\n"}, "offline"),
        ({"WANDB_CONFIG_DIR": "c"}, {"c/settings": "[default]\nmode=disabled\n"}, "disabled"),
        ({}, {"home/.config/wandb/settings": "[default]\nmode=offline\n",
              "wandb/settings": "[default]\nmode=online\n"}, "online"),
        ({"WANDB_MODE": "online"}, {"wandb/settings": "[default]\nmode=offline\n"}, "online"),
        ({}, {"wandb/settings": "mode = offline\n"}, "offline"),
        ({}, {"wandb/settings": "[default]\nmode = quiet\n"}, "offline"),
        ({}, {"wandb/settings": "[default]\nmode = \udcff\n"}, "offline"),
        ({}, {"wandb/settings": "[default]\nentity = us\n"}, "online"),
    ],
)  # fmt: skip
def test_auto_heeds_every_switch_of_wandb_and_sends_nothing_in_doubt(
    variables: dict[str, str],
    files: dict[str, str],
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Issue 10, 26."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(text.encode(errors="surrogateescape"))

    assert wandb_names.mode_for("auto") == mode
    assert wandb_names.mode_for("online") == "online"


@pytest.mark.parametrize("mode", ["online", "offline", "disabled", "dryrun"])
def test_the_settings_of_a_folder_are_read_as_wandb_reads_them(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Issue 10, 26: against W&B itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {mode}\n")

    done = subprocess.run([sys.executable, "-c", WANDB_ITSELF], capture_output=True, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])

    usual = wandb_settings.usual_mode()
    assert theirs == mode
    assert usual is not None
    assert usual[0] == {"dryrun": "offline"}.get(mode, mode)


def test_a_key_for_another_server_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 10, 26: the address may stand in W&B's settings file only."""
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nbase_url = https://w.example\n")

    assert not wandb_names.has_key()


def test_a_key_is_found_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")

    found = []
    for text in ("machine other login user password x\n", "nonsense\n",
                 "machine wandb.example login user password x\n"):  # fmt: skip
        file.write_text(text)
        found.append(wandb_names.has_key())

    assert found == [False, False, True]


def test_damaged_wandb_json_begins_a_new_run_and_says_so(
    fake_wandb: Calls,
    tiny: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "wandb.json").write_text('{"id": "ab')

    make_tracker(tiny(wandb="offline"), tmp_path, {}).close(0)

    assert "wandb.json is damaged; a new W&B run begins" in capsys.readouterr().err
    assert len(done(fake_wandb, "finish")) == 1


def test_tensorboard_that_is_not_installed_is_refused(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UserError, match="tensorboard: not installed; `pip install tensorboard`"):
        tracking.check(tiny(tensorboard=True))
