"""Checkpoints are atomic, readable without running code, and refused where they are not ours."""

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fastppo import checkpoint
from fastppo.errors import MachineError, UserError

STATE: dict[str, Any] = {
    "config": {"env_id": "CartPole-v1"},
    "update": 3,
    "global_step": 24,
    "wall_time": 1.5,
    "policy": {"w": torch.arange(4.0)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}},
    "obs_normalizer": None,
    "reward_scaler": None,
}


def test_state_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "00000003.pt"

    checkpoint.save(path, STATE)
    loaded = checkpoint.load(path)

    assert loaded["update"] == 3
    assert loaded["obs_normalizer"] is None
    assert torch.equal(loaded["policy"]["w"], STATE["policy"]["w"])
    assert [file.name for file in path.parent.iterdir()] == ["00000003.pt"]


def test_checkpoint_of_a_run_loads_without_unpickling_code(finished_run: Path) -> None:
    for path in (finished_run / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)

        assert state["format"] == "fastppo.checkpoint/1"
        assert {"config", "update", "global_step", "policy", "optimizer"} <= set(state)


class Evil:
    """Runs code when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def foreign_files(folder: Path) -> dict[str, Path]:
    """Files that are no checkpoint of ours, by kind."""
    folder.mkdir(exist_ok=True)
    files = {kind: folder / f"{kind}.pt" for kind in (
        "empty", "text", "zip", "tensor", "dict", "version", "code", "list", "truncated", "half",
    )}  # fmt: skip
    files["empty"].touch()
    files["text"].write_text("not a checkpoint\n")
    with zipfile.ZipFile(files["zip"], "w") as archive:
        archive.writestr("data.pkl", b"junk")
    torch.save(torch.zeros(3), files["tensor"])
    torch.save({"state_dict": {}}, files["dict"])
    torch.save({"format": "fastppo.checkpoint/99"}, files["version"])
    torch.save({"format": checkpoint.FORMAT, "policy": Evil(folder / "pwned")}, files["code"])
    torch.save([1, 2], files["list"])
    checkpoint.save(files["truncated"], STATE)
    whole = files["truncated"].read_bytes()
    files["truncated"].write_bytes(whole[:-1])
    files["half"].write_bytes(whole[: len(whole) // 2])
    return files


@pytest.mark.parametrize(
    "kind",
    ["empty", "text", "zip", "tensor", "dict", "version", "code", "list", "truncated", "half"],
)
def test_foreign_or_damaged_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = foreign_files(tmp_path / "files")[kind]

    with pytest.raises(UserError) as caught:
        checkpoint.load(path)

    message = str(caught.value)
    assert message.startswith(f"checkpoint: {path} ")
    assert "delete it to fall back on the one before" in message
    assert "\n" not in message
    assert not (path.parent / "pwned").exists()


def resaved(path: Path, **changes: Any) -> Path:
    """A checkpoint as somebody else would write it: changed, with the digest of what it was."""
    checkpoint.save(path, STATE)
    torch.save(torch.load(path, weights_only=True) | changes, path)
    return path


def test_a_flipped_bit_is_not_trained_on(tmp_path: Path) -> None:
    """Issue 10, 10: the zip's own checksum is of what was written, not of what was meant."""
    weights = torch.arange(4.0)
    weights.view(torch.int32)[2] ^= 1 << 26
    assert weights.isfinite().all()

    with pytest.raises(UserError, match=r"one\.pt: its content was changed .*; delete it to fall"):
        checkpoint.load(resaved(tmp_path / "one.pt", policy={"w": weights}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": {"w": torch.tensor([1.0, float("nan")])}}, "policy.w holds numbers that are"),
        ({"obs_normalizer": {"mean": torch.tensor(float("inf"))}}, "obs_normalizer.mean holds"),
        ({"update": -1}, "update is -1 and must be 0 or above"),
        ({"update": "3"}, "update is str and not int"),
        ({"update": True}, "update is bool and not int"),
        ({"global_step": 2.5}, "global_step is float and not int"),
        ({"wall_time": float("nan")}, "wall_time is nan and must be"),
        ({"policy": None}, "policy is NoneType and not dict"),
        ({"optimizer": []}, "optimizer is list and not dict"),
        ({"config": 3}, "config is int and not dict"),
        ({"digest": 3}, "its content was changed"),
    ],
)
def test_a_field_that_is_off_is_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Issue 10, 10."""
    with pytest.raises(UserError) as caught:
        checkpoint.load(resaved(tmp_path / "one.pt", **changes))

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", checkpoint.FIELDS)
def test_a_missing_field_is_named(name: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one.pt", {key: STATE[key] for key in STATE if key != name})

    with pytest.raises(UserError, match=f"{name} is missing"):
        checkpoint.load(tmp_path / "one.pt")


def test_a_checkpoint_from_before_there_were_digests_is_read(tmp_path: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, **STATE}, tmp_path / "old.pt")

    assert checkpoint.load(tmp_path / "old.pt")["update"] == 3


def test_a_file_that_may_not_be_read_is_not_called_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 10, 12. By a patch, for root may read everything."""
    checkpoint.save(tmp_path / "one.pt", STATE)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(permission denied\); make it readable"):
        checkpoint.load(tmp_path / "one.pt")


def test_copies_of_the_users_are_neither_newest_nor_rotated_away(tmp_path: Path) -> None:
    """Issue 10, 9."""
    for name in ("00000005.pt", "99999999.pt", "100000000.pt"):
        checkpoint.save(tmp_path / name, STATE)
    copies = ["best.pt", "00000005-copy.pt", "zzz.pt", "7.pt"]
    for name in copies:
        checkpoint.save(tmp_path / name, STATE)

    assert checkpoint.newest(tmp_path).name == "100000000.pt"
    checkpoint.prune(tmp_path, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*copies, "100000000.pt"])


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()

    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            checkpoint.load(path)


def test_missing_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        checkpoint.load(tmp_path / "none.pt")
    with pytest.raises(UserError, match="is truncated or no checkpoint"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("step", ["fsync", "replace", "torch.save"])
def test_failed_write_leaves_the_earlier_file_and_no_rest(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "checkpoints" / "00000001.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"fsync": "os.fsync", "replace": "pathlib.Path.replace", "torch.save": "torch.save"}
    monkeypatch.setattr(target[step], fail)
    with pytest.raises(MachineError) as caught:
        checkpoint.save(path, {"update": 4})

    message = str(caught.value)
    assert message.startswith(f"checkpoint: cannot write {path} (no space left on device)")
    assert message.endswith(f"fastppo train --resume {tmp_path / 'run'}`")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_newest_is_the_latest_update_and_pruning_keeps_the_newest(tmp_path: Path) -> None:
    for update in (9, 10, 100, 2):
        checkpoint.save(tmp_path / f"{update:08d}.pt", STATE)

    assert checkpoint.newest(tmp_path).name == "00000100.pt"
    checkpoint.prune(tmp_path, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["00000010.pt", "00000100.pt"]
    checkpoint.prune(tmp_path, 5)
    assert len(list(tmp_path.iterdir())) == 2


def test_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checkpoint: none in"):
        checkpoint.newest(tmp_path)
