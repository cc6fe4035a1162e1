"""What `fastppo profile` prints: 80 columns, and plain text where it is not a terminal."""

import textwrap
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from fastppo import machine
from fastppo.bench.profile import verdict
from fastppo.bench.profile.run import Profile
from fastppo.bench.report.console import WIDTH, make_console, make_table
from fastppo.bench.results.intervals import median_interval

TOP = 12
"""Operators shown."""
NAME_WIDTH, NAME_WIDTH_GPU = 38, 30


def render(profile: Profile, console: Console | None = None) -> None:
    """Prints rates, phases, operators, counts, ceilings, and the verdict."""
    console = console or make_console()
    for line in _header(profile):
        console.print(line, markup=False)
    console.print()
    console.print(_phases(console, profile))
    _gap(console)
    console.print(_operators(console, profile))
    _gap(console)
    for line in counts(profile):
        console.print(line, markup=False)
    console.print()
    for line in wrapped(verdict.paragraph(profile.facts())):
        console.print(line, markup=False)


def wrapped(text: str) -> list[str]:
    """Lines of at most WIDTH columns; a flag stays in one piece."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def _gap(console: Console) -> None:
    if not console.is_terminal:
        console.print()


def _header(profile: Profile) -> list[str]:
    config, facts = profile.config, machine.machine()
    plain = median_interval([update.env_steps_per_s for update in profile.plain])
    threads = f"threads: EnvPool {profile.plan.env_threads}, torch {profile.plan.torch_threads}"
    return [
        f"{facts['cpu']}, {facts['cores']} cores, {', '.join(facts['gpus']) or 'no GPU'}",
        f"{config.env_id}, {config.num_envs} x {config.num_steps}, {profile.device}, "
        f"kernels: {profile.backend}, {threads}",
        f"{plain.value:,.0f} env_steps/s ({plain.low:,.0f}-{plain.high:,.0f}), "
        f"{plain.value * profile.frame_skip:,.0f} frames/s, updates: {len(profile.plain)}",
        f"with the profiler {median(u.env_steps_per_s for u in profile.profiled):,.0f} "
        f"env_steps/s ({overhead(profile):.0%} longer); only operators' times have it",
    ]


def overhead(profile: Profile) -> float:
    """Part by which the profiler lengthens an update, from the pairs of the rounds."""
    pairs = zip(profile.profiled, profile.plain, strict=True)
    return median(traced.wall_s / plain.wall_s for traced, plain in pairs) - 1.0


def phase_seconds(profile: Profile) -> dict[str, float]:
    """Mean seconds of an update by phase, and `wall`, without the profiler."""
    names = profile.plain[0].phases
    means = {name: fmean(u.phases[name] for u in profile.plain) for name in names}
    return means | {"wall": fmean(u.wall_s for u in profile.plain)}


def _phases(console: Console, profile: Profile) -> Table:
    seconds = phase_seconds(profile)
    table = make_table(console, ["per update", *seconds])
    table.add_row("ms", *(f"{value * 1e3:,.1f}" for value in seconds.values()))
    table.add_row("share", *(f"{value / seconds['wall']:.0%}" for value in seconds.values()))
    return table


def _operators(console: Console, profile: Profile) -> Table:
    trace, updates = profile.trace, len(profile.traces)
    on_gpu = profile.device.type == "cuda"
    # of the annotated phases: the profiled wall, in which the operators' times were taken
    total = sum(update.wall_s for update in profile.profiled)
    heads = ["top operators, per update", "calls", "own ms", "share", "us/call"]
    table = make_table(console, heads + (["device ms"] if on_gpu else []))
    ranked = sorted(
        trace.operators.items(),
        key=lambda item: item[1].device_us if on_gpu else item[1].self_us,
        reverse=True,
    )
    width = NAME_WIDTH_GPU if on_gpu else NAME_WIDTH
    for name, operator in ranked[:TOP]:
        row = [
            name if len(name) <= width else name[: width - 3] + "...",
            f"{operator.calls / updates:,.0f}",
            f"{operator.self_us * 1e-3 / updates:,.2f}",
            f"{operator.self_us * 1e-6 / total:.0%}",
            f"{operator.self_us / operator.calls:,.1f}",
        ]
        device = [f"{operator.device_us * 1e-3 / updates:,.2f}"] if on_gpu else []
        table.add_row(*row, *device)
    return table


def counts(profile: Profile) -> list[str]:
    """Lines of what happens per env step, memory and ceilings."""
    trace, facts = profile.trace, profile.facts()
    steps = facts.env_steps * len(profile.traces)

    def copies(kind: str) -> str:
        count, num_bytes = trace.copies.get(kind, [0, 0])
        return f"{count / steps:.3g} ({num_bytes / steps:,.0f} B)"

    if facts.on_gpu:
        moved = [
            f"launches {trace.launches / steps:.3g}, syncs {trace.syncs / steps:.3g}",
            f"HtoD {copies('HtoD')}, DtoH {copies('DtoH')}, DtoD {copies('DtoD')}",
        ]
    else:
        moved = [
            f"aten::copy_ {copies('host')}, of them aten::_to_copy {copies('to_copy')}",
            "launches, syncs: none, no GPU",
        ]
    return [
        f"per env step: {facts.operators / facts.env_steps:.3g} operators",
        *(f"  {line}" for line in moved),
        f"peak memory: torch's allocator {_size(profile.memory['allocator'])}"
        f"{'' if facts.on_gpu else ' within an update'}, process "
        f"{_size(profile.memory['process'])}",
        f"ceilings: EnvPool alone {facts.envpool_rate:,.0f} env_steps/s, of which this run makes "
        f"{facts.env_steps_per_s / facts.envpool_rate:.0%};",
        f"  matmul {facts.matmul_flops_per_s / 1e9:,.3g} GFLOP/s, copy "
        f"{facts.copy_bytes_per_s / 1e9:,.3g} GB/s",
    ]


def _size(num_bytes: int) -> str:
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:.2f} GB"
    return f"{num_bytes / 2**20:,.1f} MB"
