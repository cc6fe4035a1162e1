"""The quick benchmark's table: at most 80 columns, and plain text where it is not a terminal."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fastppo.bench.samples import PHASES

WIDTH = 80


def make_console() -> Console:
    """Standard output, cut to WIDTH columns."""
    console = Console(highlight=False, soft_wrap=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    return console


def render(
    header: dict[str, Any], results: Sequence[dict[str, Any]], console: Console | None = None
) -> None:
    """Prints header, rates, phases and footnotes.

    Args:
        header: `machine`, `versions`, `date` and `command`.
        results: `quick.Measurement.to_dict()` of each environment.
        console: where to; standard output by default.
    """
    console = console or make_console()
    machine, versions = header["machine"], header["versions"]
    load = " ".join(f"{value:.2f}" for value in machine["load"])
    console.print(f"{machine['cpu']}, {machine['cores']} cores, load {load}", markup=False)
    console.print(
        f"{header['date']}  torch {versions['torch']}, envpool {versions['envpool']}, "
        f"python {versions['python']}",
        markup=False,
    )
    console.print(f"$ {header['command']}\n", markup=False)
    for block in (_rates(results, console), _phases(results, console)):
        console.print(block)
        if not console.is_terminal:
            console.print()
    for note in _notes(results):
        console.print(note, markup=False)


def _table(console: Console, first: str, columns: Sequence[str]) -> Table:
    framed = console.is_terminal
    table = Table(
        box=box.SIMPLE_HEAD if framed else None,
        pad_edge=False,
        padding=(0, 0 if framed else 2, 0, 0),
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _rates(results: Sequence[dict[str, Any]], console: Console) -> Table:
    columns = ("fastppo", "reference", "ratio (min-max)", "EnvPool alone", "share")
    table = _table(console, "env steps/s", columns)
    for result in results:
        summary, rates = result["summary"], result["summary"]["rates"]
        spread = f"{summary['ratio_low']:.2f}-{summary['ratio_high']:.2f}"
        table.add_row(
            result["env_id"],
            f"{rates['fastppo']:,.0f}",
            f"{rates['reference']:,.0f}",
            f"{summary['ratio']:.2f} ({spread})",
            f"{rates['envpool']:,.0f}",
            f"{rates['fastppo'] / rates['envpool']:.0%}",
        )
    return table


def _phases(results: Sequence[dict[str, Any]], console: Console) -> Table:
    table = _table(console, "fastppo's time", PHASES)
    for result in results:
        shares = result["summary"]["phase_shares"]
        table.add_row(result["env_id"], *(f"{shares[phase]:.0%}" for phase in PHASES))
    return table


def _notes(results: Sequence[dict[str, Any]]) -> list[str]:
    notes = [
        "env steps/s: transitions over wall time, no reset rows; median over the rounds.",
        "ratio: fastppo over reference within a round; median, smallest and largest.",
        "reference: bench/reference.py, eager PyTorch as users write it.",
        "EnvPool alone: pool.step(), random actions, fastppo's threads; share: of that.",
    ]
    for result in results:
        config, implementations = result["config"], result["implementations"]
        ours, theirs = implementations["fastppo"], implementations["reference"]
        notes += [
            f"\n{result['env_id']}: {config['num_envs']} x {config['num_steps']} steps, "
            f"{config['update_epochs']} x {config['num_minibatches']} minibatches, "
            f"{ours['num_parameters']:,} weights",
            f"  {result['summary']['num_rounds']} rounds; EnvPool, torch threads: "
            f"fastppo {ours['env_threads']} and {ours['torch_threads']}, "
            f"reference {theirs['env_threads'] or 'default'} and {theirs['torch_threads']}",
        ]
        for name, rates in result["thread_probe"].items():
            tried = ", ".join(f"{threads} ({rate:,.0f}/s)" for threads, rate in rates.items())
            notes.append(f"  torch threads tried with {name}: {tried}")
    return notes
