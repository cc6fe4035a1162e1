"""What a training run shows: a live display on a terminal, one plain line per update otherwise."""

import sys
import termios
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fastppo.config import RunConfig
from fastppo.console import PlainConsole
from fastppo.returns import WINDOW, ReturnWindow
from fastppo.timing import PHASES
from fastppo.token_config import command_of


class Progress(Protocol):
    """Shows one update after another."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def show(self, metrics: dict[str, Any]) -> None:
        """Shows the metrics of one update."""


USUAL = {"episode/count", "episode/return", "episode/length"}
"""Of the metrics under episode/; others are a task's own, and shown by their names."""


class _Running:
    """Smoothed figures behind both displays."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.returns = ReturnWindow()
        self.unit = "tokens" if command_of(config.env_id) == "tokens" else "env steps"
        self.evaluated: float | None = None
        self.best = float("-inf")
        self._rates: deque[float] = deque(maxlen=20)

    def add(self, metrics: dict[str, Any]) -> None:
        self._rates.append(metrics["env_steps_per_s"])
        self.returns.add(metrics["episode/count"], metrics.get("episode/return"))
        if (evaluated := metrics.get("eval/mean_return")) is not None:
            self.evaluated, self.best = evaluated, max(self.best, evaluated)

    @property
    def mean_return(self) -> str:
        """Of the last episodes; the score of a response may be all in its decimals."""
        mean = self.returns.mean
        return "-" if mean is None else f"{mean:.{3 if self.unit == 'tokens' else 1}f}"

    @property
    def rate(self) -> float:
        return sum(self._rates) / len(self._rates)

    def seconds_left(self, update: int) -> float:
        # a rollout may hold nothing but resets: N = T = 1
        return (self.config.num_updates - update) * self.config.batch_size / max(self.rate, 1e-9)


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, metrics: dict[str, Any]) -> None:
        """Does nothing."""


class PlainLines(Quiet):
    """One line per update, for logs."""

    def __init__(self, config: RunConfig) -> None:
        self._running = _Running(config)

    def show(self, metrics: dict[str, Any]) -> None:
        """Prints the update's line."""
        running = self._running
        running.add(metrics)
        update, lost = metrics["update"], metrics.get("env/non_finite_rows")
        evaluated = metrics.get("eval/mean_return")
        line = (
            f"update {update}/{running.config.num_updates}"
            f"  steps {metrics['global_step']}"
            f"  {running.unit.replace(' ', '_')}/s {metrics['env_steps_per_s']:.0f}"
            f"  remaining {_duration(running.seconds_left(update))}"
            f"  return {running.mean_return}"
            + "".join(f"  {name} {value:.4f}" for name, value in _own(metrics))
            + f"  policy_loss {metrics['loss/policy_loss']:.4f}"
            f"  value_loss {metrics['loss/value_loss']:.4f}"
            f"  entropy {metrics['loss/entropy']:.3f}"
            f"  kl {metrics['loss/approx_kl']:.4f}"
            + (f"  skipped {metrics['skipped_steps']}" if metrics["skipped_steps"] else "")
            + (f"  not finite {lost}" if lost else "")
            + (f"  evaluated {evaluated:.1f}" if evaluated is not None else "")
        )
        print(line, flush=True)


class LiveDisplay:
    """A table that is redrawn in place, twice a second."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self._running = _Running(config)
        self._live = Live(console=console, refresh_per_second=2, transient=False)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(_no_echo())
        self._stack.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, metrics: dict[str, Any]) -> None:
        """Redraws the display."""
        self._running.add(metrics)
        self._live.update(self._draw(metrics))

    def _draw(self, metrics: dict[str, Any]) -> Table:
        running, config = self._running, self._running.config
        update = metrics["update"]
        done = update / config.num_updates
        table = Table(
            title=f"{config.env_id}  seed {config.seed}", title_justify="left", show_header=False
        )
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        table.add_row("progress", f"{_bar(done)} {done:.0%}  update {update}/{config.num_updates}")
        steps = f"{metrics['global_step']:,} of {config.total_timesteps:,}"
        if running.unit == "tokens":
            table.add_row("tokens", f"{steps} (padding is not counted)")
            table.add_row("rate", f"{running.rate:,.0f} tokens/s")
        else:
            table.add_row("env steps", f"{steps} (reset rows are not counted)")
            frames = metrics["frames"] / max(metrics["global_step"], 1) * running.rate
            table.add_row("rate", f"{running.rate:,.0f} env steps/s  {frames:,.0f} frames/s")
        table.add_row(
            "time",
            f"elapsed {_duration(metrics['wall_time'])}"
            f"  remaining {_duration(running.seconds_left(update))}",
        )
        table.add_row("return", f"{running.mean_return} (last {WINDOW} episodes)")
        if own := _own(metrics):
            table.add_row("task", "  ".join(f"{name} {value:.4f}" for name, value in own))
        if running.evaluated is not None:
            table.add_row("evaluated", f"{running.evaluated:.1f}  best {running.best:.1f}")
        table.add_row(
            "losses",
            f"policy {metrics['loss/policy_loss']:.4f}  value {metrics['loss/value_loss']:.4f}"
            f"  entropy {metrics['loss/entropy']:.3f}",
        )
        table.add_row(
            "ratio",
            f"kl {metrics['loss/approx_kl']:.4f}  clip fraction {metrics['loss/clip_frac']:.1%}"
            f"  explained variance {metrics['loss/explained_variance']:.2f}",
        )
        total = metrics["time/total"]
        shares = (f"{name} {metrics[f'time/{name}'] / total:.0%}" for name in (*PHASES, "other"))
        table.add_row("phases", "  ".join(shares))
        if metrics["skipped_steps"]:
            table.add_row("skipped", f"{metrics['skipped_steps']} steps were not finite")
        if lost := metrics.get("env/non_finite_rows"):
            table.add_row("left out", f"{lost} rows were not finite")
        return table


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keeps what is typed, ^C for one, out of the display, which it would move by a line."""
    try:
        stdin = sys.stdin.fileno()
        kept = termios.tcgetattr(stdin)
        changed = [*kept[:3], kept[3] & ~termios.ECHO, *kept[4:]]
        termios.tcsetattr(stdin, termios.TCSADRAIN, changed)
    except (termios.error, OSError, ValueError, AttributeError):  # no terminal, or none of ours
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error, OSError):
            termios.tcsetattr(stdin, termios.TCSADRAIN, kept)


def make_progress(config: RunConfig, *, quiet: bool) -> Progress:
    """The display that fits: none, live on a terminal, plain lines otherwise."""
    if quiet:
        return Quiet()
    console = PlainConsole()
    if console.is_terminal and sys.stdout.isatty():
        return LiveDisplay(config, console)
    return PlainLines(config)


def _own(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """What a task measures beyond its return."""
    names = sorted(name for name in metrics if name.startswith("episode/") and name not in USUAL)
    found = [(name.removeprefix("episode/").replace("_", " "), metrics[name]) for name in names]
    if "loss/ref_kl" in metrics:
        found.append(("kl to reference", metrics["loss/ref_kl"]))
    return found


def _bar(fraction: float, width: int = 20) -> str:
    full = round(fraction * width)
    return "#" * full + "-" * (width - full)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
