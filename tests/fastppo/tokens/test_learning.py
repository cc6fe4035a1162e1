"""The three tasks with the settings of the command, to their ends: minutes each, so on request."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastppo.token_config import TASKS, TokenConfig
from fastppo.tokens import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def last_rows(task: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    config = TokenConfig(env_id=task, seed=seed, device="cpu", **TASKS[task])
    run = command.start(config, folder / "run", quiet=True)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-5:]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_words_are_reversed(seed: int, tmp_path: Path) -> None:
    rows = last_rows("tokens/reverse", seed, tmp_path)

    assert sum(row["episode/exact_match"] for row in rows) / len(rows) >= 0.95


def test_the_e_is_shunned_near_the_model_that_had_it(tmp_path: Path) -> None:
    rows = last_rows("tokens/lipogram", 1, tmp_path)

    assert max(row["episode/e_rate"] for row in rows) < 0.01
    assert max(row["loss/ref_kl"] for row in rows) < 0.3


def test_the_bandit_is_at_its_optimum(tmp_path: Path) -> None:
    rows = last_rows("tokens/bandit", 1, tmp_path)

    assert max(row["episode/total_variation"] for row in rows) < 0.01
