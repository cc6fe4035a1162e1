"""Settings from a file: TOML, YAML, or JSON such as `--show-config` prints."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastppo import field_types, files, foreign
from fastppo.config import RunOptions
from fastppo.errors import UserError, why

_POWER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read(path: Path, kind: type[RunOptions]) -> dict[str, Any]:
    """The settings that a file holds, by name; of a run's config.json, those of the run.

    Args:
        kind: whose settings they are.

    Raises:
        UserError: the file cannot be read, a setting is unknown, or a value of another type.
    """
    try:
        found = _parser(path, raw := path.read_bytes())(raw)
    except OSError as error:
        raise UserError(f"config: {path} cannot be read ({why(error)}); name another") from None
    except (ValueError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        remedy = "mend it, or name a .toml, .yaml or .json file"
        raise UserError(f"config: {path} cannot be read ({reason}); {remedy}") from None
    if isinstance(found, dict) and isinstance(found.get("config"), dict):
        found = found["config"]
    if not isinstance(found, dict):
        raise UserError(f"config: {path} holds no settings; write one per line: num_envs = 16")
    return {name: _checked(path, kind, name, value) for name, value in found.items()}


def _parser(path: Path, raw: bytes) -> Callable[[bytes], Any]:
    """By the name of the file; what `--show-config` prints is JSON, wherever it was put."""
    if raw.lstrip().startswith(b"{"):
        return files.parse_json
    if path.suffix == ".toml":
        return lambda raw: tomllib.loads(raw.decode())
    return _from_yaml if path.suffix in (".yaml", ".yml") else files.parse_json


def _checked(path: Path, owner: type[RunOptions], name: str, value: Any) -> Any:
    kinds = field_types.of(owner)
    if name not in kinds:
        raise UserError(f"config: {path}: {name}: {foreign.setting_answer(name, kinds)}")
    kind = kinds[name]
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and field_types.fits(0.5, kind):
        value = float(value)
    if not field_types.fits(value, kind):
        what = field_types.describe(kind)
        raise UserError(f"config: {path}: {name}: {value!r} must be {what}")
    return value


def _from_yaml(raw: bytes) -> Any:
    import yaml

    try:
        found = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict):
        return found
    return {name: float(x) if _is_power(x) else x for name, x in found.items()}


def _is_power(value: Any) -> bool:
    """3e-4, which YAML 1.1 takes for text."""
    return isinstance(value, str) and _POWER.fullmatch(value) is not None
