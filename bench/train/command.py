"""`fastppo bench train`: env steps per second of fastppo and other libraries, side by side."""

import argparse
import math
import os
import time
from pathlib import Path
from typing import Any

from fastppo import paths, signals
from fastppo.bench.launch import implementations
from fastppo.bench.launch.measure import BRIEF, FULL, Effort, Measurement
from fastppo.bench.recipes import workloads
from fastppo.bench.results import result
from fastppo.bench.train import entries
from fastppo.errors import MachineError, UserError, why
from fastppo.text import print_out
from fastppo.tracking import wandb_names

DEFAULT = ("fastppo", "reference", implementations.PEERS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastppo bench train`."""
    add = parser.add_argument
    add("env_ids", nargs="*", metavar="ENV_ID", help="default: the standard set, in both recipes")
    add(
        "--impl",
        action="append",
        metavar="LIST",
        help="fastppo, reference, a peer, peers (all that "
        "are installed), name=module:function, or name='command line' (default: the first two and "
        "peers)",
    )
    add("--base", metavar="NAME", help="whom ratios compare with (default: reference)")
    add("--preset", metavar="LIST", help="paper, wide, or NxT such as 8x128 (default: paper)")
    add("--seconds", type=float, metavar="S", help="least length of a slice (default 1)")
    add("--pairs", type=int, metavar="N", help="rounds of one slice each (default 8)")
    add("--launches", type=int, metavar="L", help="fresh processes the rounds are spread over (4)")
    add("--seed", type=int, default=1, help="of every implementation (default 1)")
    add("--device", default="auto", help="cpu, cuda or auto: a GPU where there is one")
    add("--cores", metavar="LIST", help="pin everything to these, such as 0,1 (default: all)")
    add("--quick", action="store_true", help="three environments, short slices, no tuning: for CI")
    add("--allow-mismatch", action="store_true", help="measure different work, too, spelled out")
    add(
        "--parity",
        type=paths.source,
        nargs="+",
        default=[],
        metavar="F",
        help="results of `bench learn`: rates whose learning passed there are marked verified",
    )
    add("--json", type=paths.output, metavar="F", help="write the result file here")
    add(
        "--html",
        type=paths.output,
        metavar="F",
        help="write the report here, one page that opens offline",
    )
    add("--md", type=paths.output, metavar="F", help="write the report here, for a pull request")
    add(
        "--wandb",
        choices=("auto", "offline", "online"),
        help="log to Weights & Biases, after measuring; without --json the result file that goes "
        "along is results/train-<time>.json",
    )


def run(args: argparse.Namespace) -> int:
    """Measures, writes what was asked for after every task, and prints the table.

    Returns:
        0, or 3 if an implementation could not be measured.
    """
    effort = _effort(args)
    chosen = implementations.parse(args.impl or [",".join(DEFAULT)])
    base = implementations.base_of(args.base, chosen, "measured")
    parity = [result.read(path) for path in args.parity]
    if args.wandb is not None and args.json is None:
        args.json = _default_file()
        paths.check_output(args.json, "--wandb")
    if args.wandb is not None:
        wandb_names.mode_for(args.wandb)  # a missing key is told before anything is measured
    _pin(args.cores)
    recipe_names = args.preset.split(",") if args.preset else []
    configs = workloads(
        args.env_ids, recipe_names, seed=args.seed, device=args.device, brief=args.quick
    )

    record = result.new("train", [])
    try:
        for config in configs:
            measurement = Measurement(
                config, chosen, effort, base=base, allow_mismatch=args.allow_mismatch
            )
            try:
                measurement.run()
            finally:  # an interrupt keeps what was measured
                with signals.held():
                    _add(record, measurement, parity)
                    if args.json is not None and (record["results"] or record["failures"]):
                        result.write(args.json, record)
    finally:
        if record["results"] or record["failures"]:
            with signals.held():
                _publish(args, record)
    return 3 if record["failures"] else 0


def _add(record: dict[str, Any], measurement: Measurement, parity: list[dict[str, Any]]) -> None:
    from fastppo.bench.results.parity_records import verified

    def learning(name: str) -> str:
        passed = verified(parity, name, measurement.config)
        return "verified" if passed else "not verified"

    record["results"] += entries.entries(measurement, learning)
    record["failures"] += entries.failures(measurement)


def _publish(args: argparse.Namespace, record: dict[str, Any]) -> None:
    """The table, the reports and the W&B runs: all after the last measurement."""
    from fastppo.bench.report import command as report

    report.print_results([record])
    if args.json is not None:
        print_out(f"samples: {args.json}")
    for path, make in ((args.html, report.html), (args.md, report.markdown)):
        if path is not None:
            report.write(path, make([record]))
            print_out(f"report: {path}")
    if args.wandb is not None and record["results"]:
        from fastppo.bench.track.command import push_record

        folders = push_record(record, args.json, args.wandb)
        if folders:
            print_out(f"W&B: {folders[-1]}")
            print_out(f"  the comparison; {len(folders) - 1} runs beside it")


def _default_file() -> Path:
    """W&B gets the result file as an artifact, so there must be one.

    Raises:
        MachineError: no folder can be made here.
    """
    folder = Path("results")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = why(error)
        raise MachineError(f"--wandb: cannot make {folder} ({reason}); name a --json F") from None
    return folder / f"train-{time.strftime('%Y%m%d-%H%M%S')}.json"


def _effort(args: argparse.Namespace) -> Effort:
    effort = BRIEF if args.quick else FULL
    seconds = effort.seconds if args.seconds is None else args.seconds
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UserError(f"--seconds: {seconds} must be a finite number above 0")
    pairs = effort.pairs if args.pairs is None else args.pairs
    launches = min(effort.launches, pairs) if args.launches is None else args.launches
    for name, value in (("pairs", pairs), ("launches", launches)):
        if value < 1:
            raise UserError(f"--{name}: {value} must be at least 1")
    if launches > pairs:
        raise UserError(f"--launches: {launches} is more than --pairs {pairs}; lower it")
    return Effort(seconds, pairs, launches, effort.warmup_s, effort.tune)


def _pin(text: str | None) -> None:
    """Children inherit the cores, and every thread plan counts them."""
    if text is None:
        return
    have = os.sched_getaffinity(0)
    try:
        cores = {int(part) for part in text.split(",")}
    except ValueError:
        cores = set()
    if not cores or not cores <= have:
        shown = ",".join(map(str, sorted(have)))
        raise UserError(f"--cores: {text!r} cannot be had; this process may use {shown}")
    os.sched_setaffinity(0, cores)
