"""The paragraph of `fastppo profile` turns with what was measured, and names what would help."""

from dataclasses import replace
from typing import Any

import pytest

from fastppo.bench.profile import verdict
from fastppo.bench.profile.verdict import Facts

FACTS = Facts(
    env_id="Pong-v5", on_gpu=False, cores=4, num_envs=8, num_minibatches=4, widths=(64, 64),
    shared_trunk=False, env_threads=2, torch_threads=2, faster_engine=None, env_steps=1000.0,
    wall_s=1.0,
    split={"env": 0.2, "dispatch": 0.2, "compute": 0.2, "memory": 0.2, "sync": 0.2},
    operators=20_000.0, operator_us=12.5, launches=3000.0, syncs=500.0, copied_bytes=5e6,
    flops=6e9, product_s=0.3, matmul_flops_per_s=1e11, copy_bytes_per_s=1e10, envpool_rate=2000.0,
)  # fmt: skip


def facts_of(name: str, **changes: Any) -> Facts:
    """Facts of a run in which `name` takes 60%."""
    split = {part: 0.6 if part == name else 0.1 for part in verdict.WHAT}
    return replace(FACTS, split=split, **changes)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (
            facts_of("env"),
            [
                "Env-bound: 60% of the wall time",
                "EnvPool alone makes 2,000 env_steps/s",
                "the run 1,000, 50% of that",
                "`--env-threads 4`",
                "`--num-envs 32`",
                "would gain 1.43x",
            ],
        ),
        (
            facts_of("dispatch"),
            ["Dispatch-bound", "20 operators of 12.5 us", "`--torch-threads 1`", "`--num-envs 32`"],
        ),
        (facts_of("dispatch", on_gpu=True), ["costs 3 kernel launches", "`--num-minibatches 2`"]),
        (
            facts_of("compute"),
            [
                "at 20 GFLOP/s",
                "on 2 threads reaches 100 (20%)",
                "`--torch-threads 4`",
                "`--hidden-sizes` below 64 64",
            ],
        ),
        (facts_of("memory"), ["5,000 bytes are copied per env step", "moves 10 GB/s"]),
        (facts_of("sync", on_gpu=True), ["Sync-bound", "waits 0.5 times per env step"]),
    ],
)
def test_the_paragraph_turns_with_what_was_measured(facts: Facts, told: list[str]) -> None:
    text = verdict.paragraph(facts)

    assert [part for part in told if part not in text] == [], text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["dispatch", "compute", "memory"])
def test_what_costs_nothing_comes_first(name: str) -> None:
    """Another engine and threads leave the learning alone; the others say that they do not."""
    text = verdict.paragraph(facts_of(name, faster_engine="mlp"))
    tries = text.partition("Try ")[2]

    assert tries.startswith("`--engine auto`, which takes mlp here")
    changing = [
        flag for flag in ("--num-envs", "--num-minibatches", "--update-epochs") if flag in tries
    ]
    assert changing
    for flag in changing:
        assert "learning changes" in tries[tries.index(flag) :]
        assert "--torch-threads" not in tries[tries.index(flag) :]


def test_no_remedy_that_is_in_use_already() -> None:
    text = verdict.paragraph(facts_of("env", env_threads=4))
    assert "--env-threads" not in text

    text = verdict.paragraph(
        facts_of("compute", torch_threads=4, flops=2.7e10, widths=None, shared_trunk=True)
    )
    for flag in ("--torch-threads", "--num-minibatches", "--hidden-sizes", "--shared-trunk"):
        assert flag not in text
    assert "--torch-threads" not in verdict.paragraph(facts_of("dispatch", torch_threads=1))


@pytest.mark.parametrize("compute", [0.1, 0.3, 0.7, 1.7, 3.0])
def test_the_split_sums_to_the_wall_whatever_the_noise(compute: float) -> None:
    split = verdict.split_time(wall_s=1.0, env_s=0.4, compute_s=compute, memory_s=0.2, sync_s=0.0)

    assert sum(split.values()) == pytest.approx(1.0)
    assert split["env"] == pytest.approx(0.4)
    assert min(split.values()) >= 0.0
