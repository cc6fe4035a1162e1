"""What a W&B run is called and how it is sorted: group, job type, tags, config, axes, mode."""

import hashlib
import json
import netrc
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastppo.config import Options
from fastppo.errors import UserError
from fastppo.revision import revision
from fastppo.token_config import TokenOptions
from fastppo.tracking import wandb_settings

# Where and how long it ran and what was kept; the rest defines the configuration.
NOT_CONFIGURATION = frozenset({
    "env_id", "preset", "seed", "device", "backend", "engine", "precision", "env_threads",
    "torch_threads",
    "eval_interval", "eval_episodes", "sample_interval", "checkpoint_interval", "keep_checkpoints",
    "max_skipped_steps", "wandb", "wandb_project", "wandb_entity", "wandb_name", "wandb_group",
    "wandb_tags", "metric_names", "tensorboard",
})  # fmt: skip
STEP_METRICS = ("global_step", "frames", "wall_time")
# patterns that overlapped would leave the choice of the axis to chance
OVER_STEPS = (
    "update", "env_steps", "learning_rate", "skipped_steps", "loss/*", "episode/*", "eval/*",
    "env/*",
)  # fmt: skip
OVER_TIME = ("env_steps_per_s", "frames_per_s", "time/*")
AXES: dict[str, str | None] = {
    **dict.fromkeys(STEP_METRICS),
    **dict.fromkeys(OVER_STEPS, "global_step"),
    **dict.fromkeys(OVER_TIME, "wall_time"),
}


def config_hash(config: Mapping[str, Any]) -> str:
    """Names a configuration: runs that differ only in seed, machine or threads share it.

    Only what differs from the defaults is hashed, so that a field added later moves no hash.
    """
    # where both have a setting, the default of `fastppo train`
    defaults = {one.name: one.default for kind in (TokenOptions, Options) for one in fields(kind)}
    plain = json.loads(json.dumps(dict(config), default=str))
    usual = json.loads(json.dumps(defaults, default=str))
    own = {
        key: value
        for key, value in plain.items()
        if key in usual and key not in NOT_CONFIGURATION and value != usual[key]
    }
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]


def group_of(config: Mapping[str, Any]) -> str:
    """`<env>/<config hash>`: the seeds of one configuration, which W&B then averages."""
    return f"{config['env_id']}/{config_hash(config)}"


def run_name(impl: str, config: Mapping[str, Any]) -> str:
    """`<impl>-<env>-s<seed>`."""
    return f"{impl}-{config['env_id']}-s{config['seed']}"


def model_name(config: Mapping[str, Any]) -> str:
    """Artifact that holds the checkpoints of one seed of one configuration."""
    raw = f"model-{config['env_id']}-{config_hash(config)}-s{config['seed']}"
    return re.sub(r"[^\w.-]", "_", raw)


def init_arguments(values: Mapping[str, Any], *, impl: str, job_type: str) -> dict[str, Any]:
    """Name, group, job type, tags and config of a W&B run.

    Args:
        values: the fields of Config, and machine, versions, device and the like.
    """
    sha = (values["code"] if "code" in values else revision())["sha"]
    keys = {
        "exp_name": impl,
        "impl": impl,
        "config_hash": config_hash(values),
        "hardware": hardware_class(values),
    }
    if sha:
        keys["git_sha"] = sha[:12]
    tags = [values["env_id"], values.get("preset"), impl, sha and sha[:7], keys["hardware"]]
    return {
        "name": values.get("wandb_name") or run_name(impl, values),
        "group": values.get("wandb_group") or group_of(values),
        "job_type": job_type,
        # W&B refuses tags of more than 64 characters
        "tags": sorted({tag[:64] for tag in (*tags, *values.get("wandb_tags", ())) if tag}),
        "config": json.loads(json.dumps({**values, **keys}, default=str)),
    }


def settings(finish_seconds: float) -> dict[str, Any]:
    """W&B's settings: it may not ask, print, follow git, or wait for ever."""
    return {
        "init_timeout": 30.0,
        "finish_timeout": finish_seconds - 5.0,
        "silent": True,
        "console": "off",
        "disable_git": True,
        "disable_code": True,
    }


def hardware_class(values: Mapping[str, Any]) -> str:
    """The GPU's name where one is there and used, else how many cores: `cpu-2c`."""
    machine = values.get("machine", {})
    if values.get("device") != "cpu" and machine.get("gpus"):
        return re.sub(r"\W+", "-", machine["gpus"][0]).strip("-").lower()
    return f"cpu-{machine.get('cores', 'unknown')}c"


def mode_for(asked: str) -> str:
    """online, offline or disabled: `auto` is online where there is a key, and offline without.

    `auto` follows W&B's own switches (`wandb_settings`); a mode asked for by name goes before them,
    as in W&B itself.

    Raises:
        UserError: `online` was asked for and there is no key; W&B would wait for one to be typed.
    """
    if asked == "auto":
        usual = wandb_settings.usual_mode()
        if usual is not None and usual[0] != "online":
            return usual[0]
        return "online" if has_key() else "offline"
    if asked == "online" and not has_key():
        raise UserError(
            "wandb: 'online' needs an API key; set WANDB_API_KEY or run `wandb login`, "
            "or record with offline"
        )
    return asked


def has_key() -> bool:
    """Whether W&B would find credentials: in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        host = urlsplit(wandb_settings.base_url()).hostname or ""
        path = os.environ.get("NETRC") or str(Path.home() / ".netrc")
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, ValueError, netrc.NetrcParseError, RuntimeError):  # no file, no home
        return False
