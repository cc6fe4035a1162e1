"""Where a result goes: the same arguments and the same order for every command that measures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastppo import signals
from fastppo.bench.results import result
from fastppo.config import WandbMode
from fastppo.errors import MachineError, why
from fastppo.paths import Output, check_output
from fastppo.text import print_out
from fastppo.tracking import wandb_names

Typed = TypeVar("Typed", bound="Outputs")


@dataclass(frozen=True, kw_only=True)  # no slots: profile has a second base with fields
class Outputs:
    """The files of one result, and its mirror."""

    json: Output = None
    """Write the result file here, with every sample."""
    html: Output = None
    """Write the report here, one page that opens offline."""
    md: Output = None
    """Write the report here as markdown, for a pull request."""
    junit: Output = None
    """Write JUnit XML here, one testcase per result."""
    wandb: WandbMode = "disabled"
    """Log to Weights & Biases at the end; without --json, results/<kind>-<time>.json is made."""


def prepared(args: Typed, kind: str) -> Typed:
    """The arguments, with a result file where W&B takes one along; called before any work.

    Args:
        kind: of the result.

    Raises:
        UserError: online without a key.
        MachineError: no folder can be made here.
    """
    if wandb_names.mode_for(args.wandb) == "disabled" or args.json is not None:
        return args
    folder = Path("results")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = why(error)
        raise MachineError(f"--wandb: cannot make {folder} ({reason}); name a --json F") from None
    path = folder / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    check_output(path, "--wandb")
    return replace(args, json=path)


def keep(record: dict[str, Any], args: Outputs) -> None:
    """Writes the result file as it stands, where there is something to write."""
    if args.json is not None and (record["results"] or record["failures"]):
        with signals.held():
            result.write(args.json, record)


def publish(record: dict[str, Any], args: Outputs, *, traces: Sequence[Path] = ()) -> None:
    """Writes the result file, prints the table, and makes the reports and W&B runs.

    A signal that comes meanwhile does its work afterwards.

    Args:
        args: from `prepared`.
        traces: profiler traces that belong to the result, for W&B.

    Raises:
        MachineError: the disk refuses.
    """
    if not (record["results"] or record["failures"]):
        return
    from fastppo.bench.report.terminal import print_results  # rich, which a GPU host may lack

    with signals.held():
        try:
            keep(record, args)
        finally:  # a full disk hides nothing of what was measured
            print_results([record])
        if args.json is not None:
            print_out(f"samples: {args.json}")
        mirror(record, args, traces=traces)


def mirror(record: dict[str, Any], args: Outputs, *, traces: Sequence[Path] = ()) -> None:
    """Makes the reports and W&B runs of a result file that is written; as `publish`."""
    asked = {"--html": args.html, "--md": args.md, "--junit": args.junit}
    if any(asked.values()):
        # matplotlib and jinja2: not needed by what only parses or measures
        from fastppo.bench.report import command as report

        makers = {"--html": report.html, "--md": report.markdown, "--junit": report.junit}
        for option, path in asked.items():
            if path is not None:
                result.write_text(path, makers[option]([record]), option)
                print_out(f"report: {path}")
    if args.wandb != "disabled" and args.json is not None and record["results"]:
        from fastppo.bench.track.command import push_record

        folders = push_record(record, args.json, args.wandb, traces=traces)
        if folders:
            print_out(f"W&B: {folders[-1]}")
        if folders[1:]:
            print_out(f"  the comparison; the runs it compares: {len(folders) - 1}")
