"""The tables of `fastppo bench env`, and the plan of `fastppo train` beside the best found."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fastppo.bench.env.rounds import Advice, Grid
from fastppo.bench.launch.pools import Setting
from fastppo.bench.report.console import make_console, make_table
from fastppo.bench.results.intervals import Interval, heading

COLUMNS = ("envs", "batch", "threads", "env_steps/s", "interval", "frames/s", "of best", "")
NOTES = (
    "env_steps/s: EnvPool alone, random actions; no reset rows; median of rounds.",
    "of best: of the best with as many environments. batch below envs: async.",
)


def render(grids: Sequence[Grid], console: Console | None = None) -> None:
    """Prints a table and the advice of each environment."""
    console = console or make_console()
    for grid in grids:
        advices = grid.advice()
        plans = {advice.plan for advice in advices}
        console.print(f"{grid.config.env_id}, EnvPool alone", markup=False)
        console.print(_table(console, grid, plans))
        label = heading(grid.rate(one).label for one, kept in grid.slices.items() if kept)
        console.print(f"interval: {label}.", markup=False)
        for failure in grid.failures:
            console.print(f"not measured: {failure['id']}: {failure['reason']}", markup=False)
        for advice in advices:
            for line in lines(grid, advice):
                console.print(line, markup=False)
        console.print()
    for note in NOTES:
        console.print(note, markup=False)


def _table(console: Console, grid: Grid, plans: set[Setting]) -> Table:
    table = make_table(console, COLUMNS, left=0)
    for num_envs in dict.fromkeys(setting.num_envs for setting in grid.slices):
        settings = grid.measured(num_envs)
        top = max((grid.rate(setting).value for setting in settings), default=0.0)
        for setting in settings:
            rate = grid.rate(setting)
            table.add_row(
                str(num_envs),
                str(setting.batch_size),
                str(setting.num_threads),
                f"{rate.value:,.0f}",
                f"{_short(rate.low)}-{_short(rate.high)}",
                f"{rate.value * grid.spec.frame_skip:,.0f}",
                f"{rate.value / top:.0%}",
                "plan" if setting in plans else "",
            )
    return table


def lines(grid: Grid, advice: Advice) -> list[str]:
    """What `fastppo train` will do with N environments, and what it could."""
    plan, best, sync = advice.plan, advice.best, advice.best_sync
    told = [
        f"train --num-envs {plan.num_envs}: EnvPool {_threads(plan.num_threads)}, torch "
        f"{advice.torch_threads}, {grid.rate(plan).value:,.0f} env_steps/s"
    ]
    if advice.gain is None:
        told.append("  the plan is the best synchronous setting")
    elif advice.gain.low > 1.0:
        told.append(
            f"  not the best: it loses {1.0 - 1.0 / advice.gain.value:.0%}; `--env-threads "
            f"{sync.num_threads}` gives {_times(advice.gain)}"
        )
    else:
        told.append(
            f"  no synchronous setting is better beyond noise ({_threads(sync.num_threads)}: "
            f"{_times(advice.gain)})"
        )
    if advice.async_gain is not None:
        found = f"batch {best.batch_size}, {_threads(best.num_threads)}"
        gain = _times(advice.async_gain)
        told.append(
            f"  async: {found} is {gain} that; train cannot use it"
            if advice.async_gain.low > 1.0
            else f"  async is no better beyond noise ({found}: {gain})"
        )
    return told


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _times(ratio: Interval) -> str:
    return f"{ratio.value:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"


def _short(rate: float) -> str:
    """Three digits and a unit: 1.23M, 45.6k, 789."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g}{unit}"
    return f"{rate:.3g}"
