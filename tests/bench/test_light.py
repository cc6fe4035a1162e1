"""What only reads loads no more than it uses: nobody waits seconds for a table or a --help."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastppo import cli

HEAVY = ("torch", "envpool", "numba", "triton", "wandb", "matplotlib", "scipy", "gymnasium")
PROGRAM = """
import json, sys
from fastppo.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit:
    pass
found = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps(found), file=sys.stderr)
"""


def loaded(*args: str) -> set[str]:
    """Which of HEAVY a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(args), json.dumps(HEAVY)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "command", ["", "--version", "bench", *(command.name for command in cli.COMMANDS)]
)
def test_help_loads_nothing_heavy(command: str) -> None:
    assert loaded(*command.split(), *([] if command == "--version" else ["--help"])) == set()


def test_a_table_loads_no_trainer(train_record: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(train_record(names=("fastppo", "reference"))))

    assert loaded("report", str(path)) <= {"scipy"}
    assert loaded("report", str(path), "--md", str(tmp_path / "r.md")) <= {"scipy"}
    assert loaded("compare", str(path), str(path)) <= {"scipy"}
