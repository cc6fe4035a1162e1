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

STATE: dict[str, Any] = {"update": 3, "policy": {"w": torch.arange(4.0)}, "none": None}


def test_state_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "00000003.pt"

    checkpoint.save(path, STATE)
    loaded = checkpoint.load(path)

    assert loaded["update"] == 3
    assert loaded["none"] is None
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
