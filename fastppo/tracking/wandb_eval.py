"""Records one `fastppo eval` in W&B: a run of its own, which names the checkpoint as its input."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastppo import machine
from fastppo.config import Config
from fastppo.text import print_err
from fastppo.tracking import trackers as tracking
from fastppo.tracking import wandb_names
from fastppo.tracking.wandb_process import WandbProcess


def record_eval(
    config: Config, run_dir: Path, checkpoint: Path, result: Mapping[str, Any], mode: str
) -> Path | None:
    """Writes an evaluation next to the run's own W&B folders; a failure of W&B is a warning.

    Args:
        config: of the training run.
        result: what `evaluate` returned.
        mode: auto, online, offline or disabled.

    Returns:
        The folder of the W&B run; None where there is none.

    Raises:
        UserError: online without a key.
    """
    mode = wandb_names.mode_for(mode)
    if mode == "disabled":
        return None
    values = config.to_dict() | machine.record()
    init = wandb_names.init_arguments(values, impl="fastppo", job_type="eval")
    run_id = secrets.token_hex(4)
    init |= {
        "project": config.wandb_project,
        "entity": config.wandb_entity,
        "id": run_id,
        "mode": mode,
    }
    seconds = tracking.FINISH_SECONDS[mode]
    row = {f"eval/{key}": value for key, value in result.items() if isinstance(value, int | float)}
    messages: list[dict[str, Any]] = [
        {
            "op": "start",
            "init": init | {"dir": str(run_dir.absolute())},
            "settings": wandb_names.settings(seconds) | {"x_disable_stats": True},
            "axes": wandb_names.AXES,
            "follow": None,
            "threshold": None,  # nobody is on the way to one here
            "marker": {"id": run_id, "part": 1},
        },
        tracking.model_artifact(checkpoint, wandb_names.model_name(config.to_dict()), use=True),
        {"op": "log", "row": row | {"global_step": result["global_step"]}},
        {"op": "finish", "exit_code": 0, "summary": {}},
    ]
    try:
        process = WandbProcess(run_dir / "wandb")
    except OSError as error:
        _warn(error.strerror or str(error))
        return None
    ended = False
    try:
        for message in messages:
            process.send(message)
        ended = process.wait_finished(1, seconds)
    finally:
        ended = process.close(seconds if ended else 0.0) and ended
    if not ended:
        _warn(process.failure or f"did not end within {seconds:.0f} s")
        return None
    return process.folders[0]


def _warn(reason: str) -> None:
    print_err(f"fastppo: warning: wandb: {reason}; the evaluation is not recorded")
