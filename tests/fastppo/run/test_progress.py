"""What a run shows: figures that are right, and a display that fits."""

import io
import os
import pty
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastppo.config import Config
from fastppo.run import progress
from fastppo.run.progress import LiveDisplay, PlainLines, Quiet, make_progress
from fastppo.timing import PHASES


def metrics_of(update: int, **changes: Any) -> dict[str, Any]:
    """Metrics as the trainer gives them: 128 steps and 0.5 s an update."""
    metrics: dict[str, Any] = {
        "update": update, "global_step": 128 * update, "frames": 512 * update,
        "wall_time": 0.5 * update, "env_steps": 128, "env_steps_per_s": 256.0,
        "frames_per_s": 1024.0, "learning_rate": 1e-3, "skipped_steps": 0,
        "episode/count": 2, "episode/return": 21.5, "episode/length": 21.5,
    }  # fmt: skip
    losses = (
        "loss", "grad_norm", "policy_loss", "value_loss", "entropy", "approx_kl", "old_approx_kl",
        "clip_frac", "explained_variance",
    )  # fmt: skip
    metrics |= {f"loss/{name}": 0.125 for name in losses}
    metrics |= {f"time/{name}": 0.08 for name in PHASES}
    return metrics | {"time/total": 0.5, "time/other": 0.1} | changes


def without_episodes(update: int) -> dict[str, Any]:
    metrics = metrics_of(update, **{"episode/count": 0})
    del metrics["episode/return"], metrics["episode/length"]
    return metrics


def console(width: int = 60) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def shown(config: Config, *metrics: dict[str, Any], width: int = 60) -> str:
    """The live display's last picture, as text."""
    display = LiveDisplay(config, console(width))
    with display:
        for row in metrics:
            display.show(row)
    paper = Console(file=io.StringIO(), width=width)
    paper.print(display._draw(metrics[-1]))
    text = paper.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_live_display_shows_rate_time_return_losses_and_phases(
    tiny: Callable[..., Config],
) -> None:
    text = shown(tiny(), metrics_of(1), metrics_of(2))
    words = " ".join(re.sub(r"[^\x20-\x7e]", " ", text).split())

    assert "CartPole-v1 seed 1" in words
    assert "33% update 2/6" in words
    assert "256 of 768 (reset rows are not counted)" in words
    assert "256 env steps/s 1,024 frames/s" in words
    assert "elapsed 0:00:01 remaining 0:00:02" in words  # 4 updates of 128 steps at 256 a second
    assert "21.5 (last 100 episodes)" in words
    assert "policy 0.1250 value 0.1250" in words
    assert "kl 0.1250" in words
    assert "clip fraction 12.5%" in words
    for name in PHASES:
        assert f"{name} 16%" in words
    assert "other 20%" in words


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_live_display_fits_any_width(width: int, tiny: Callable[..., Config]) -> None:
    text = shown(tiny(), metrics_of(1), width=width)

    assert all(len(line) <= width for line in text.splitlines())


def test_live_display_draws_on_its_console_and_ends_clean(tiny: Callable[..., Config]) -> None:
    screen = console()

    with LiveDisplay(tiny(), screen) as display:
        display.show(metrics_of(1))

    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "env steps/s" in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_a_run_without_episodes_so_far_shows_a_dash(
    tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    PlainLines(tiny()).show(without_episodes(1))

    assert "return -" in capsys.readouterr().out
    assert "- (last 100 episodes)" in shown(tiny(), without_episodes(1))


def test_an_update_of_resets_alone_can_be_shown(tiny: Callable[..., Config]) -> None:
    """One environment, one step, done before: no transition, so the rate is 0."""
    idle = metrics_of(2, env_steps=0, env_steps_per_s=0.0, frames_per_s=0.0)

    assert "0 env steps/s" in shown(tiny(), idle)
    PlainLines(tiny()).show(idle)


def test_skipped_steps_are_shown_where_there_are_any(
    tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = PlainLines(tiny())
    lines.show(metrics_of(1))
    lines.show(metrics_of(2, skipped_steps=3))

    first, second = capsys.readouterr().out.splitlines()
    assert "skipped" not in first
    assert "skipped 3" in second
    assert "3 steps were not finite" in shown(tiny(), metrics_of(1, skipped_steps=3))
    assert "not finite" not in shown(tiny(), metrics_of(1))


def test_one_plain_line_per_update_with_its_figures(
    tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = PlainLines(tiny())
    for update in (1, 2, 3):
        lines.show(metrics_of(update))

    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[2].startswith(
        "update 3/6  steps 384  env_steps/s 256  remaining 0:00:01  return 21.5"
    )
    for name in ("policy_loss", "value_loss", "entropy", "kl"):
        assert f"  {name} 0.125" in out[2]


def test_return_is_the_mean_over_the_last_hundred_episodes(tiny: Callable[..., Config]) -> None:
    """By episode and not by update: 60 of return 1, then 50 of return 2, leave a window of 110."""
    running = progress._Running(tiny())
    for count, value in [(500, 0.0), (60, 1.0), (50, 2.0)]:
        running.add(metrics_of(1, **{"episode/count": count, "episode/return": value}))

    assert running.returns.mean == pytest.approx((60 * 1 + 50 * 2) / 110)


def test_plain_lines_where_no_terminal_is_and_nothing_when_quiet(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PlainConsole", lambda: console())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert isinstance(make_progress(tiny(), quiet=False), PlainLines)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isinstance(make_progress(tiny(), quiet=False), LiveDisplay)
    quiet = make_progress(tiny(), quiet=True)
    assert isinstance(quiet, Quiet)
    assert not isinstance(quiet, PlainLines)


def test_ctrl_c_in_a_narrow_terminal_leaves_one_title(tmp_path: Path) -> None:
    """A table as wide as the window: an echo of ^C would wrap, and the next picture miss a line."""
    words = ["train", "CartPole-v1", "--run-dir", str(tmp_path / "run"), "--total-timesteps"]
    child, terminal = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = "45"
        os.execv(sys.executable, [sys.executable, "-m", "fastppo", *words, "9000000"])
    said, asked = b"", False
    with suppress(OSError):  # the terminal's end
        while data := os.read(terminal, 65536):
            said += data
            if not asked and said.count(b"seed 1") == 3:
                os.write(terminal, b"\x03")
                asked = True
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGINT
    assert b"^C" not in said
    assert b"\x03" not in said
    assert b"stopped after update" in said
