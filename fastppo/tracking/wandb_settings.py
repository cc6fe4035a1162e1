"""What W&B's variables and settings files say here, read as W&B reads them, without importing it.

W&B passes over a file or value that it does not understand, and sends. Here that sends nothing.
"""

import configparser
import os
from pathlib import Path

_MODES = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_UNREADABLE = (OSError, RuntimeError, UnicodeDecodeError, configparser.Error)
_FALSE = ("", "0", "false", "no", "off")


def usual_mode() -> tuple[str, str] | None:
    """online, offline or disabled, and what says so; None where nothing does.

    WANDB_MODE goes before the files, a folder's own file before the user's; WANDB_DISABLED, which
    W&B's integrations follow, before all. A value that is not understood counts as offline.
    """
    if os.environ.get("WANDB_DISABLED", "").strip().lower() not in _FALSE:
        return "disabled", "WANDB_DISABLED"
    asked = os.environ.get("WANDB_MODE")
    if asked is not None:
        return _MODES.get(asked, "offline"), "WANDB_MODE"
    for path in _files():
        try:
            found = _read(path).get("mode")
        except _UNREADABLE:
            return "offline", f"{path}, which cannot be read"
        if found is not None:
            return _MODES.get(found, "offline"), str(path)
    return None


def base_url() -> str:
    """Address of the W&B server."""
    if address := os.environ.get("WANDB_BASE_URL"):
        return address
    for path in _files():
        try:
            address = _read(path).get("base_url")
        except _UNREADABLE:
            continue  # then the mode is offline
        if address:
            return address
    return "https://api.wandb.ai"


def _files() -> list[Path]:
    """Settings files, the one that goes first first."""
    # W&B's commands write below WANDB_DIR, its library reads below the current folder
    folders = dict.fromkeys((Path(), Path(os.environ.get("WANDB_DIR") or ".")))
    local = [
        folder / (".wandb" if (folder / ".wandb").exists() else "wandb") / "settings"
        for folder in folders
    ]
    usual = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    return [Path(os.path.expanduser(path)) for path in (*local, Path(usual) / "settings")]


def _read(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser()
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    parser.read_string(text)
    return dict(parser.items("default")) if parser.has_section("default") else {}
