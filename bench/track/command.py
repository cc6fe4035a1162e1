"""`fastppo track push`: stored results and runs become W&B runs, offline or online."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fastppo import files
from fastppo.bench.results import result
from fastppo.bench.track.args import PushArgs
from fastppo.bench.track.runs import PlannedRun, planned
from fastppo.errors import MachineError, UserError, why
from fastppo.follower import Follower
from fastppo.run.rundir import RunDir
from fastppo.text import print_err, print_out
from fastppo.tracking import trackers as tracking
from fastppo.tracking import wandb_names
from fastppo.tracking.wandb_process import WandbProcess
from fastppo.tracking.wandb_run import MARKER

RUN_SECONDS = {"offline": 60.0, "online": 300.0}
"""How long one pushed run may take."""


def run(args: PushArgs) -> int:
    """Runs `fastppo track push`.

    Raises:
        UserError, MachineError
    """
    if not args.files:
        raise UserError("FILE: missing; name a result file or a run directory")
    mode = wandb_names.mode_for("online" if args.online else "offline")
    base = None if args.against is None else (result.read(args.against), args.against)
    # all read before the first is pushed: a damaged file leaves nothing half done
    files = {path.resolve(): path for path in args.files}.values()
    records = {path: None if path.is_dir() else result.read(path) for path in files}
    for path, record in records.items():
        if record is None:
            folders = [_push_run_dir(path, mode)]
        else:
            folders = _push(record, path, mode, args.project, base, ())
        for folder in folders:
            print_out(f"{path}: {'sent' if mode == 'online' else 'recorded in'} {folder}")
        if mode == "offline":
            print_out(f"next: fastppo track sync {path if record is None else path.parent}")
    return 0


def push_record(
    record: dict[str, Any],
    path: Path,
    mode: str,
    *,
    project: str = "fastppo",
    traces: Sequence[Path] = (),
) -> list[Path]:
    """Mirrors a result that was just measured; a failure of W&B is a warning.

    Args:
        path: the file that holds the record; W&B's folders go next to it, into wandb/.
        mode: auto, online, offline or disabled.
        traces: profiler traces that belong to it.

    Returns:
        The folders of the runs.

    Raises:
        UserError: online without a key.
    """
    mode = wandb_names.mode_for(mode)
    if mode == "disabled":
        return []
    try:
        return _push(record, path, mode, project, None, traces)
    except MachineError as error:
        remedy = f"the result is in {path}; try `fastppo track push {path}`"
        print_err(f"fastppo: warning: {error}; {remedy}")
        return []


def _push(
    record: dict[str, Any],
    path: Path,
    mode: str,
    project: str,
    against: tuple[dict[str, Any], Path] | None,
    traces: Sequence[Path],
) -> list[Path]:
    folder = path.absolute().parent
    tracking.check_writable(folder)
    messages = []
    for plan in planned(record, path, against=against, traces=traces):
        init = plan.init | {"project": project, "dir": str(folder), "mode": mode}
        messages.append(_messages(plan, init, _next_part(folder, plan.init["id"])))
    return _record_all(folder, messages, mode)


def _messages(plan: PlannedRun, init: dict[str, Any], part: int) -> list[dict[str, Any]]:
    start = {
        "op": "start",
        "init": init,
        # nothing runs whose system statistics W&B could record
        "settings": wandb_names.settings(RUN_SECONDS[init["mode"]]) | {"x_disable_stats": True},
        "axes": wandb_names.AXES,
        "follow": None,
        "threshold": None,
        "marker": {"id": init["id"], "part": part},
    }
    tables = [
        {"op": "table", "key": key, "columns": list(columns), "rows": rows}
        for key, (columns, rows) in plan.tables.items()
    ]
    finish = {"op": "finish", "exit_code": 0, "summary": plan.summary}
    rows = [{"op": "log", "row": row} for row in plan.rows]
    return [start, *rows, *tables, *plan.artifacts, finish]


def _next_part(folder: Path, run_id: str) -> int:
    return 1 + len(list((folder / "wandb").glob(f"offline-run-*-{run_id}*/{MARKER}")))


def _push_run_dir(path: Path, mode: str) -> Path:
    """Mirrors a run directory once more, as the next part of its W&B run."""
    opened = RunDir.open(path)
    config = opened.read_any_config()
    tracking.check_writable(path)
    record = files.parse_json((path / "config.json").read_bytes(), constants=True)
    facts = {key: value for key, value in record.items() if key != "config"}
    try:
        with closing(Follower(path / "metrics.jsonl")) as follower:
            updates = [row["update"] for row in follower.rows()]
        start = tracking.start_message(config, path, facts, mode, 0)
        done = bool(updates) and updates[-1] >= config.num_updates
    except (ValueError, KeyError, TypeError):
        remedy = "`fastppo train --resume` repairs it"
        raise UserError(f"{path}: metrics.jsonl is damaged; {remedy}") from None
    except OSError as error:
        raise MachineError(f"{path}: {why(error)}") from error
    start["settings"] |= {"x_disable_stats": True}
    name = wandb_names.model_name(config.to_dict())
    newest = tracking.newest_checkpoint(path)
    model = [] if newest is None else [tracking.model_artifact(newest, name, use=False)]
    finish: dict[str, Any] = {"op": "finish", "exit_code": 0 if done else 1, "summary": {}}
    [folder] = _record_all(path, [[start, *model, finish]], mode)
    return folder


def _record_all(folder: Path, runs: Sequence[list[dict[str, Any]]], mode: str) -> list[Path]:
    """Has one W&B process record the runs, one after another.

    Raises:
        MachineError: W&B failed or took too long.
    """
    try:
        process = WandbProcess(folder / "wandb")
    except OSError as error:
        raise MachineError(f"wandb: cannot start ({error.strerror or error})") from error
    ended = False
    try:
        for count, messages in enumerate(runs, start=1):
            for message in messages:
                process.send(message)
            if not process.wait_finished(count, RUN_SECONDS[mode]):
                reason = process.failure or f"a run took over {RUN_SECONDS[mode]:.0f} s"
                raise MachineError(f"wandb: {reason}")
        ended = True
    finally:
        process.close(RUN_SECONDS[mode] if ended else 0.0)
    return process.folders
