"""A film of an evaluation: a picture for every step of the first environment."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import fastppo
from fastppo.errors import UserError
from fastppo.run import video

imageio: Any = pytest.importorskip("imageio.v2")
pytest.importorskip("imageio_ffmpeg")
# imageio leaves the pipes of ffmpeg to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def pictures(path: Path) -> list[Any]:
    with imageio.get_reader(path) as reader:
        return [picture for picture in reader.iter_data()]


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_it_shows_every_step_of_the_first_environment(
    suffix: str, finished_run: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / f"film.{suffix}"
    outcome = command("eval", finished_run, "--episodes", 2, "--video", path)
    assert outcome.code == 0, outcome.err

    lengths = fastppo.evaluate(finished_run, episodes=2)["returns"]  # 1 point a step
    shown = pictures(path)
    # of the reset, and after every step; a GIF joins pictures that are alike
    assert len(shown) <= lengths[0] + 1
    assert len(shown) == lengths[0] + 1 or suffix == "gif"
    assert shown[0].shape[:2] == (400, 600)
    assert np.abs(shown[0].astype(int) - shown[-1].astype(int)).max() > 50
    assert outcome.out.splitlines()[-1] == f"film: {path}"
    assert list(tmp_path.iterdir()) == [path]


def test_the_result_is_the_same_with_and_without(finished_run: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.gif"

    assert fastppo.evaluate(finished_run, episodes=3, video=film) == fastppo.evaluate(
        finished_run, episodes=3
    )


def test_atari_is_shown_at_its_own_speed(tmp_path: Path) -> None:
    run = fastppo.train(
        "Pong-v5", run_dir=tmp_path / "run", num_envs=1, num_steps=4, num_minibatches=1,
        total_timesteps=4, max_episode_steps=30,
    )  # fmt: skip
    fastppo.evaluate(run.path, episodes=1, video=tmp_path / "film.mp4")

    with imageio.get_reader(tmp_path / "film.mp4") as reader:
        assert reader.get_meta_data()["fps"] == 15
        assert reader.get_data(0).shape == (210, 160, 3)


def test_environments_of_ones_own_are_filmed_where_they_draw(tmp_path: Path) -> None:
    def envs(**options: Any) -> Any:
        return gymnasium.make_vec("CartPole-v1", num_envs=2, **options)

    run = fastppo.train(
        envs=envs(), run_dir=tmp_path / "run", num_steps=16, num_minibatches=1, total_timesteps=32
    )
    with pytest.raises(UserError, match="video: envs draw nothing; make them with render_mode="):
        fastppo.evaluate(run.path, envs=envs(), episodes=1, video=tmp_path / "film.gif")
    assert not (tmp_path / "film.gif").exists()

    pytest.importorskip("pygame")
    drawing = envs(render_mode="rgb_array")
    fastppo.evaluate(run.path, envs=drawing, episodes=2, video=tmp_path / "film.gif")
    assert len(pictures(tmp_path / "film.gif")) > 5


def test_another_kind_of_file_is_refused(
    finished_run: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = command("eval", finished_run, "--video", tmp_path / "film.avi")

    assert outcome.code == 2
    assert outcome.err == (
        f"fastppo: error: video: {tmp_path / 'film.avi'} must end in .mp4 or .gif\n"
    )


@pytest.mark.parametrize("missing", ["imageio", "imageio_ffmpeg"])
def test_a_package_that_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name=missing)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=f"video: {missing} is missing; pip install imageio"):
        video.check(Path("film.mp4"))


def test_a_task_that_cannot_be_drawn_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo without OpenGL ends its process; here the process is another."""
    monkeypatch.setattr(video, "_PROBE", "import os; print('no OpenGL here'); os._exit(1)")

    with pytest.raises(UserError, match=r"cannot draw HalfCheetah-v4 here \(no OpenGL here\)") as e:
        video.prepare_drawing("HalfCheetah-v4")
    assert "libosmesa6" in str(e.value)
