"""Responses as text while a model trains: a few are shown, and kept in samples.jsonl."""

import json
from collections.abc import Sequence
from typing import Any

from fastppo.errors import MachineError, why
from fastppo.run.rundir import RunDir
from fastppo.text import print_out
from fastppo.token_config import TokenConfig

KEPT = 8
"""Of an update."""
SHOWN = 2
FILE = "samples.jsonl"


class Samples:
    """Keeps those of every `sample_interval` updates, of the first and of the last one."""

    def __init__(self, run: RunDir, config: TokenConfig, *, quiet: bool) -> None:
        self._path = run.path / FILE
        self._config = config
        self._quiet = quiet

    def keep(self, update: int, samples: Sequence[dict[str, Any]]) -> None:
        """Appends the first few of an update; a run that goes on may have some twice.

        Raises:
            MachineError: the disk is full or gone.
        """
        interval = self._config.sample_interval
        if not interval or (update % interval and update not in (1, self._config.num_updates)):
            return
        lines = [json.dumps({"update": update} | sample) + "\n" for sample in samples[:KEPT]]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise MachineError(
                f"run_dir: cannot write {self._path} ({why(error)}); free space"
            ) from error
        for sample in [] if self._quiet else samples[:SHOWN]:
            prompt, response = sample["prompt"], sample["response"]
            print_out(f"  {prompt!r} -> {response!r}  score {sample['score']:.3f}")
