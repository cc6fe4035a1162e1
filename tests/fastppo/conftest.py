"""A small trained run, and the command line called in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastppo.cli import main
from fastppo.config import Config
from fastppo.run import session

TINY: dict[str, Any] = dict(
    env_id="CartPole-v1", preset="classic", total_timesteps=768, num_envs=4, num_steps=32,
    num_minibatches=2, update_epochs=2, hidden_sizes=(16,), device="cpu", backend="torch",
    checkpoint_interval=2,
)  # fmt: skip


class Outcome(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Makes a config of 6 updates of CartPole that takes a fraction of a second."""

    def make(**changes: Any) -> Config:
        return Config(**(TINY | changes))

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 updates, with checkpoints 2, 4 and 6; not to be written to."""
    path = tmp_path_factory.mktemp("finished") / "run"
    session.start(Config(**TINY), path, quiet=True)
    return path


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def stopped_run(run_copy: Path) -> Path:
    """The run as a crash in its fifth update would have left it: checkpoints 2 and 4."""
    (run_copy / "checkpoints" / "00000006.pt").unlink()
    return run_copy


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Calls `fastppo ARGS` in this process."""

    def call(*args: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as left:  # tyro's own way out
            code = int(left.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call
