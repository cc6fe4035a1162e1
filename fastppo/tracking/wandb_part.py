"""Which W&B run a run directory belongs to, kept in its wandb.json.

W&B's own resume does nothing offline, and appends online: rows after the checkpoint would be there
twice. Here every start of a run is a *part*: it has the run's W&B id and holds the whole history,
from the first update on, as metrics.jsonl has it. W&B replaces the history of a run by that of a
later one with the same id, so the part uploaded last is the whole run, with each update once.
"""

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastppo import files
from fastppo.text import print_err

FILE = "wandb.json"
SCHEMA = "fastppo.wandb/1"


def next_part(run_dir: Path, *, mode: str, after_update: int) -> dict[str, Any]:
    """Writes down that another part begins.

    Args:
        after_update: update of the checkpoint it goes on from, 0 for a new run.

    Returns:
        id, part (from 1), mode, after_update, created.

    Raises:
        OSError: wandb.json cannot be written.
    """
    known = _read(run_dir / FILE)
    part = {
        "id": known["id"],
        "part": len(known["parts"]) + 1,
        "mode": mode,
        "after_update": after_update,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    known["parts"].append(part)
    files.write(run_dir / FILE, json.dumps(known, indent=1) + "\n")
    return part


def _read(path: Path) -> dict[str, Any]:
    # W&B's sweeps choose the id of a run themselves
    fresh = {"schema": SCHEMA, "id": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)}
    if not path.exists():
        return fresh | {"parts": []}
    try:
        known = files.parse_json(path.read_bytes())
        named = known["schema"] == SCHEMA and isinstance(known["id"], str) and known["id"]
        if named and isinstance(known["parts"], list):
            return dict(known)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    print_err(f"fastppo: warning: wandb: {path} is damaged; a new W&B run begins")
    return fresh | {"parts": []}
