"""The smaller files that commands read, damaged: refused by an error of ours, or taken for none."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.peers import registry
from fastppo.bench.static import gate
from fastppo.bench.track import sync
from fastppo.errors import MachineError, UserError
from fastppo.tracking import wandb_part, wandb_settings
from fastppo.tracking.wandb_run import MARKER

pytestmark = pytest.mark.slow
TRIES = 1500


@pytest.fixture
def readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, Callable[[], Any]]:
    """Each file, and what reads it."""
    wandb_part.next_part(tmp_path, mode="offline", after_update=0)
    settings = tmp_path / "wandb" / "settings"
    settings.parent.mkdir()
    settings.write_text("[default]\nmode = offline\nbase_url = http://localhost\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("FASTPPO_PEERS", str(tmp_path / "peers"))
    stamp = tmp_path / "peers" / "sb3" / registry.STAMP
    (stamp.parent / "bin").mkdir(parents=True)
    (stamp.parent / "bin" / "python").touch()
    pins = registry.PEERS["sb3"].pins
    stamp.write_text(json.dumps({"requirements": pins, "version": "2", "packages": {}}))
    part = tmp_path / "offline-run-1" / MARKER
    part.parent.mkdir()
    part.write_text(json.dumps({"id": "abc", "part": 1}))
    found: dict[Path, Callable[[], Any]] = {
        tmp_path / wandb_part.FILE: lambda: wandb_part.next_part(
            tmp_path, mode="offline", after_update=0
        ),
        settings: lambda: (wandb_settings.usual_mode(), wandb_settings.base_url()),
        stamp: lambda: (registry.is_current("sb3"), registry.installed()),
        part: lambda: sync.find_parts([tmp_path]),
    }
    for path in gate.EXPECTED.glob("*.json"):
        copy = Path(shutil.copy(path, tmp_path))
        compiler = path.name.split("-")[1]
        found[copy] = partial(gate.read_expectation, copy, compiler, lambda _: True)
    return found


@pytest.mark.timeout(1800)
def test_every_other_file(
    readers: dict[Path, Callable[[], Any]], mutants: Callable[..., Any], tally: Any
) -> None:
    for path, read in readers.items():
        whole = path.read_bytes()
        name = "-".join(path.name.split("-")[:2])
        edit = "json" if whole.startswith(b"{") else None
        for kind, mutant in mutants(whole, TRIES, edit):
            group = f"{name}: {kind}"
            path.write_bytes(mutant)
            try:
                read()
                right = True
            except (UserError, MachineError) as error:
                right = "\n" not in str(error)
            except Exception as error:
                tally.add(group, f"{mutant[:80]!r}: {error!r}", right=False)
                continue
            tally.add(group, f"{mutant[:80]!r}", right=right)
        tally.check(group)
