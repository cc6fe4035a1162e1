"""`fastppo bench env`: EnvPool alone over numbers of environments, batch sizes and threads.

The pools of one environment are alive together and take turns, each round in a fresh order, so
that what slows a shared machine slows them alike; settings are compared within rounds.
"""

import math
from collections.abc import Sequence
from typing import Any

from fastppo import cgroups, signals
from fastppo.bench.env.args import WIDE, Args
from fastppo.bench.env.rounds import Grid, config_of, measure, plan_of
from fastppo.bench.launch.pools import Setting
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.config import Config
from fastppo.errors import Interrupted, UserError
from fastppo.signals import StopRequest
from fastppo.text import print_err


def make_grid(
    config: Config,
    num_envs: Sequence[int],
    batch_sizes: Sequence[int] | None,
    num_threads: Sequence[int] | None,
) -> list[Setting]:
    """Every combination that makes sense, and the plan of each number of environments.

    Args:
        batch_sizes: None for N, N / 2 and N / 4.
        num_threads: None for the powers of two up to the cores, and the cores.
    """
    cores = cgroups.available_cores()
    tried = num_threads or sorted({*(2**i for i in range(cores.bit_length())), cores})
    settings = set()
    for envs in num_envs:
        settings.add(plan_of(config, envs)[0])
        for batch in batch_sizes or {envs, max(1, envs // 2), max(1, envs // 4)}:
            settings |= {Setting(envs, batch, t) for t in tried if batch <= envs and t <= envs}
    return sorted(settings, key=lambda s: (s.num_envs, -s.batch_size, s.num_threads))


def _numbers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: {text!r} must be whole numbers, such as 8,64") from None
    if min(numbers) < 1:
        raise UserError(f"{option}: {min(numbers)} must be at least 1")
    return sorted(set(numbers))


Work = dict[str, tuple[Config, list[Setting]]]
"""Per environment what to measure."""


def work_of(args: Args) -> Work:
    """The request, checked.

    Raises:
        UserError: a number or name is off, or the record cannot be written there.
    """
    if not args.env_ids:
        raise UserError("env_id: missing; name an EnvPool task, such as CartPole-v1")
    num_envs = _numbers(args.num_envs, "--num-envs")
    batch_sizes = _numbers(args.batch_sizes, "--batch-sizes")
    num_threads = _numbers(args.threads, "--threads")
    if not (args.seconds > 0 and math.isfinite(args.seconds)):
        raise UserError(f"--seconds: {args.seconds} must be a finite number above 0")
    if args.rounds < 1:
        raise UserError(f"--rounds: {args.rounds} must be at least 1")
    work: Work = {}
    for env_id in args.env_ids:
        if env_id in work:
            raise UserError(f"env_id: {env_id!r} is named twice")
        config = config_of(env_id)
        envs = num_envs or sorted({config.num_envs, WIDE})
        if batch_sizes and batch_sizes[-1] > envs[-1]:
            raise UserError(
                f"--batch-sizes: {batch_sizes[-1]} is more than the {envs[-1]} environments; "
                "lower it, or raise --num-envs"
            )
        work[env_id] = (config, make_grid(config, envs, batch_sizes, num_threads))
    return work


def run(args: Args) -> int:
    """Measures, prints the tables, and writes the record if asked for.

    Returns:
        0 done, 3 a setting did not fit into memory, 130 or 143 stopped: what was measured until
        then is printed and written.

    Raises:
        UserError: the request is off; nothing was measured.
    """
    work = work_of(args)
    args = prepared(args, "env")
    grids: list[Grid] = []
    exit_code = 0
    with StopRequest() as stop:
        for env_id, (config, settings) in work.items():
            header = f"[{len(grids) + 1}/{len(work)}] {env_id}: {len(settings)} settings"
            print_err(f"{header}, {args.seconds:g} s of slices ...")
            grids.append(
                measure(config, settings, seconds=args.seconds, rounds=args.rounds, stop=stop)
            )
            try:
                stop.check()
            except Interrupted as interrupted:
                exit_code = interrupted.exit_code
                signals.tell("fastppo: interrupted; what was measured is kept")
                break
        publish(record_of(grids), args)
    return exit_code or (3 if any(grid.failures for grid in grids) else 0)


def record_of(grids: Sequence[Grid]) -> dict[str, Any]:
    """The result file."""
    failures = [failure for grid in grids for failure in grid.failures]
    entries = [entry for grid in grids for entry in grid.entries()]
    return result.new("env", entries, failures=failures)
