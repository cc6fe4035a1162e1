"""`fastppo profile ENV_ID`: where the time of a few updates goes, and what bounds the run.

Takes the settings of `fastppo train`. DIR/trace.json.gz opens in Perfetto or chrome://tracing;
DIR/profile.json is the rest, as a result file.
"""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from fastppo import paths, settings, signals
from fastppo.bench.profile import run as profile_run
from fastppo.bench.profile import verdict
from fastppo.bench.profile.args import Args
from fastppo.bench.profile.session import compress
from fastppo.bench.publish import prepared, publish
from fastppo.bench.results import result
from fastppo.config import Config
from fastppo.errors import Interrupted, MachineError, UserError, why
from fastppo.signals import StopRequest
from fastppo.text import print_out

TRACE, RECORD = "trace.json.gz", "profile.json"


def run(args: Args) -> int:
    """Profiles, prints, and writes both files.

    Returns:
        0.

    Raises:
        UserError: a setting is off, or DIR cannot be written; nothing has run.
        MachineError: the disk refuses.
        Interrupted: stopped; both files hold the rounds that were whole, if there were any.
    """
    config = settings.checked(args, Config)
    if config.engine in ("mlp", "graph"):
        seen = "a whole update is one call, and the profiler sees nothing inside"
        raise UserError(f"engine: {config.engine!r} cannot be profiled: {seen}; use eager")
    if args.updates < 1:
        raise UserError(f"updates: {args.updates} must be at least 1")
    folder = args.out or _default_folder(config)
    paths.check_folder(folder, "--out", (TRACE, RECORD))
    args = prepared(replace(args, json=args.json or folder / RECORD), "profile")
    with StopRequest() as stop, tempfile.TemporaryDirectory() as scratch:
        try:
            profile = profile_run.measure(config, args.updates, Path(scratch), stop)
        except Interrupted:
            signals.tell("fastppo: interrupted; nothing was written")
            raise
        write(folder, Path(scratch) / "trace.json")
        record = result.new("profile", [entry(profile)])
        publish(record, args, traces=[folder / TRACE])
        print_out(f"trace of the last update, for https://ui.perfetto.dev: {folder / TRACE}")
        done = len(profile.plain)
        if done < args.updates:
            signals.tell(f"fastppo: interrupted; {done} of {args.updates} updates are kept")
        stop.check()
    return 0


def _default_folder(config: Config) -> Path:
    name = config.env_id.replace("/", "_")
    return Path("runs") / f"profile-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def write(folder: Path, trace: Path) -> None:
    """Makes the folder, and writes the trace whole or not at all.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        compress(trace, folder / TRACE)
    except OSError as error:
        reason = why(error)
        raise MachineError(f"out: cannot write {folder} ({reason}); free space") from error


def entry(profile: Any) -> dict[str, Any]:
    """The one entry of the record's `results`.

    Args:
        profile: a `profile_run.Profile`.
    """
    config = profile.config
    return {
        "id": f"profile/{config.env_id}/{config.num_envs}x{config.num_steps}",
        "impl": "fastppo",
        "unit": "env_steps/s",
        "better": "higher",
        "clock": "wall",
        "launches": [
            {
                "order": 0,
                "samples": [update.env_steps_per_s for update in profile.plain],
                "seconds": [update.wall_s for update in profile.plain],
            }
        ],
        "profile": _detail(profile),
    }


def _detail(profile: Any) -> dict[str, Any]:
    config, facts, plan = profile.config, profile.facts(), profile.plan
    return {
        "env_id": config.env_id,
        "config": config.to_dict(),
        "frame_skip": profile.frame_skip,
        "device": str(profile.device),
        "backend": profile.backend,
        "threads": {"env": plan.env_threads, "torch": plan.torch_threads},
        "trace": TRACE,
        "bound": verdict.bound(facts),
        "verdict": verdict.paragraph(facts),
        "split": dict(facts.split),
        "facts": asdict(facts),
        "phases": profile.phase_seconds(),
        "profiled_env_steps_per_s": [update.env_steps_per_s for update in profile.profiled],
        "profiled_wall_s": fmean(update.wall_s for update in profile.profiled),
        "profiler_overhead": profile.overhead(),
        "ceilings": profile.ceilings,
        "memory": profile.memory,
        **_counted(profile),
    }


def _counted(profile: Any) -> dict[str, Any]:
    """Copies and operators, means per update."""
    trace, updates = profile.trace, len(profile.traces)
    ranked = sorted(trace.operators.items(), key=lambda item: item[1].self_us, reverse=True)
    return {
        "copies": {
            kind: {"calls": count / updates, "bytes": num_bytes / updates}
            for kind, (count, num_bytes) in trace.copies.items()
        },
        "operators": [
            {
                "name": name,
                "kind": operator.kind,
                "calls": operator.calls / updates,
                "self_s": operator.self_us * 1e-6 / updates,
                "device_s": operator.device_us * 1e-6 / updates,
            }
            for name, operator in ranked
        ],
    }
