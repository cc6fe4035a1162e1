"""Two result files through the options of `fastppo compare`, and records of several launches."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastppo import arguments
from fastppo.bench.compare import command
from fastppo.bench.compare.args import Args

Record = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Writes two records and compares them through the command's own options."""

    def compare_files(a: Record | Path, b: Record | Path, *options: str) -> int:
        paths = []
        for name, one in (("a", a), ("b", b)):
            path = one if isinstance(one, Path) else tmp_path / f"{name}.json"
            if not isinstance(one, Path):
                path.write_text(json.dumps(one))
            paths.append(str(path))
        return command.run(arguments.read(Args, [*paths, *options], "fastppo compare"))

    return compare_files


@pytest.fixture
def launched() -> Callable[..., Record]:
    """A record with its samples shared out among launches, on a machine of another speed.

    Args:
        machine: multiplies what was measured, the ceilings included.
    """

    def share(record: Record, launches: int = 4, machine: float = 1.0) -> Record:
        shared = deepcopy(record)
        for entry in shared["results"]:
            ((first),) = entry["launches"]
            factor = machine if entry["better"] == "higher" else 1.0 / machine
            parts = np.array_split(np.array(first["samples"]) * factor, launches)
            entry["launches"] = [
                {"order": i, "samples": part.tolist()} for i, part in enumerate(parts)
            ]
            if train := entry.get("train"):
                for name in train["ceilings"]:
                    train["ceilings"][name] *= machine
                train["ceiling_launches"] = {
                    name: [rate] * launches for name, rate in train["ceilings"].items()
                }
        return shared

    return share
