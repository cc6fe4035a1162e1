"""`fastppo train --seeds N`: a process and a run directory for each seed, and what they came to."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.live import Live
from rich.table import Table

from fastppo import files
from fastppo.children import Child
from fastppo.config import RunConfig
from fastppo.console import PlainConsole
from fastppo.errors import MachineError, UserError, why
from fastppo.follower import Follower
from fastppo.returns import ReturnWindow
from fastppo.run.rundir import unused
from fastppo.text import print_err, print_out
from fastppo.token_config import command_of

GRACE_S = 60.0
"""For a run to save its checkpoint when the seeds are stopped."""
LOOK_S = 0.5
"""Between two looks at what the runs have logged."""


@dataclass
class Seed:
    """One run, and what is known of it."""

    number: int
    path: Path
    child: Child | None = None
    code: int | None = None
    last: dict[str, Any] = field(default_factory=dict)
    returns: ReturnWindow = field(default_factory=ReturnWindow)

    def __post_init__(self) -> None:
        self._follower = Follower(self.path / "metrics.jsonl")

    def look(self) -> None:
        """Reads what the run has logged since the last look."""
        for row in self._follower.rows():
            self.returns.add(row["episode/count"], row.get("episode/return"))
            self.last = row

    def close(self) -> None:
        """Ends the process, if it still runs."""
        self._follower.close()
        if self.child is not None:
            self.child.close()
            self.child = None


def train(config: RunConfig, folder: Path | None, *, count: int, jobs: int, quiet: bool) -> int:
    """Trains seeds `config.seed` and the next ones; returns the exit code.

    Args:
        folder: of the run directories, `seed-<n>` each; None for runs/<env>-seeds-<stamp>.
        jobs: how many train side by side.

    Raises:
        UserError: the folder holds something, or there are fewer than one seed or job.
        MachineError: it cannot be written.
    """
    if jobs < 1:
        raise UserError(f"jobs: {jobs} must be above 0")
    if folder is None:
        name = config.env_id.replace("/", "_")
        folder = unused(Path("runs") / f"{name}-seeds-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"run_dir: {folder} is there already; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "settings.json"  # config.json would make the folder a run
        files.write(settings, json.dumps({"config": config.to_dict()}, indent=2) + "\n")
    except OSError as error:
        raise MachineError(f"run_dir: cannot write {folder} ({why(error)})") from error
    seeds = [Seed(n, folder / f"seed-{n}") for n in range(config.seed, config.seed + count)]
    _run(seeds, settings, config, jobs, quiet=quiet)
    summary = _summary(seeds, config)
    files.write(folder / "summary.json", json.dumps(files.finite(summary), indent=2) + "\n")
    if not quiet:
        print_out(_line(summary, folder))
    return max((seed.code or 0 for seed in seeds), default=0)


def _run(
    seeds: Sequence[Seed], settings: Path, config: RunConfig, jobs: int, *, quiet: bool
) -> None:
    waiting, running = list(seeds), list[Seed]()
    console = PlainConsole()
    live = not quiet and console.is_terminal
    with ExitStack() as stack:
        display = stack.enter_context(Live(console=console, refresh_per_second=2)) if live else None
        stack.callback(_stop, seeds)
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.pop(0)
                _start(seed, settings, command_of(config.env_id))
                running.append(seed)
                if not quiet and not live:
                    print_out(f"seed {seed.number}: starts in {seed.path}")
            time.sleep(LOOK_S)
            for seed in list(running):
                seed.look()
                if _has_ended(seed):
                    running.remove(seed)
                    if not quiet and not live:
                        print_out(f"seed {seed.number}: {_state(seed, config)}")
            if display is not None:
                display.update(_table(seeds, config))


def _start(seed: Seed, settings: Path, name: str) -> None:
    words = ["--config", str(settings), "--seed", str(seed.number), "--run-dir", str(seed.path)]
    command = [sys.executable, "-m", "fastppo", name, *words, "--quiet"]
    seed.child = Child(command, stderr=subprocess.PIPE, grace_s=GRACE_S)


def _has_ended(seed: Seed) -> bool:
    assert seed.child is not None
    code = seed.child.wait(0.0)
    if code is None:
        return False
    assert seed.child.stderr is not None
    seed.code, said = code if code >= 0 else 128 - code, seed.child.stderr.read().decode()
    seed.look()
    seed.close()
    if seed.code:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        print_err(f"fastppo: seed {seed.number} ended with exit code {seed.code}: {last}")
    return True


def _stop(seeds: Sequence[Seed]) -> None:
    """Lets the runs that are still at it save what they have."""
    for seed in seeds:
        if seed.child is not None:
            seed.child.signal(signal.SIGTERM)
    for seed in seeds:
        if seed.child is not None:
            seed.child.wait(GRACE_S)
        seed.close()


def _table(seeds: Sequence[Seed], config: RunConfig) -> Table:
    table = Table(title=f"{config.env_id}  {len(seeds)} seeds", title_justify="left")
    for name in ("seed", "progress", "env steps/s", "return"):
        table.add_column(name, justify="right")
    for seed in seeds:
        rate = seed.last.get("env_steps_per_s")
        mean = seed.returns.mean
        table.add_row(
            str(seed.number),
            _state(seed, config),
            "-" if rate is None else f"{rate:,.0f}",
            "-" if mean is None else f"{mean:,.1f}",
        )
    return table


def _state(seed: Seed, config: RunConfig) -> str:
    if seed.code:
        return f"failed ({seed.code})"
    if seed.code == 0:
        mean = seed.returns.mean
        return "done" if mean is None else f"done, return {mean:,.1f}"
    if seed.child is None:
        return "waits"
    update = seed.last.get("update", 0)
    return f"{update / config.num_updates:.0%}" if update else "starts"


def _summary(seeds: Sequence[Seed], config: RunConfig) -> dict[str, Any]:
    finals = [seed.returns.mean for seed in seeds if seed.code == 0]
    known = [one for one in finals if one is not None]
    return {
        "env_id": config.env_id,
        "seeds": {
            str(seed.number): {
                "run_dir": seed.path.name,
                "exit_code": seed.code,
                "return": seed.returns.mean,
                "global_step": seed.last.get("global_step", 0),
                "wall_time": seed.last.get("wall_time", 0.0),
            }
            for seed in seeds
        },
        "mean_return": fmean(known) if known else math.nan,
        "std_return": stdev(known) if len(known) > 1 else math.nan,
    }


def _line(summary: dict[str, Any], folder: Path) -> str:
    seeds = summary["seeds"]
    done = sum(one["exit_code"] == 0 for one in seeds.values())
    found = f"{summary['env_id']}: {done} of {len(seeds)} seeds done"
    if math.isfinite(summary["mean_return"]):
        found += f", return {summary['mean_return']:.1f}"
        if math.isfinite(summary["std_return"]):
            found += f" +- {summary['std_return']:.1f}"
        found += " (last 100 episodes of each)"
    return f"{found}, in {folder}"
