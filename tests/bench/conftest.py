"""Synthetic result files: what the tests of reports and comparisons read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastppo.bench.contract import PHASES
from fastppo.bench.report.terminal import print_results
from fastppo.bench.results import result
from fastppo.config import Config

Record = dict[str, Any]
HOSTILE = "<script>alert(1)</script>&a|b$c`d"
MACHINE = {
    "fingerprint": "0123456789abcdef",
    "cpu": "AMD EPYC",
    "cores": 2,
    "memory_gb": 23.5,
    "os": "Linux-6.18",
    "gpus": [],
}
WORK = {
    "parameters": 1_686_180,
    "forward_flops": 15_000_000,
    "rows_per_update": 1024,
    "minibatch_rows": 256,
    "epochs": 4,
    "gradient_steps_per_update": 16,
    "precision": "float32",
    "obs_bytes": 28_224,
    "trains_on_reset_rows": False,
    "wrappers": ["episodic_life", "sign_reward"],
    "network": "nature cnn, shared trunk",
}


def top(kind: str, results: list[Record], **extra: Any) -> Record:
    return {
        "schema": "fastppo.result/1",
        "kind": kind,
        "run_id": "0123456789",
        "created": "2026-11-23T12:00:00+00:00",
        "command": ["/some/where/fastppo", "bench", kind, "Pong-v5"],
        "code": {"sha": "69f6058" * 5, "dirty": True},
        "machine": dict(MACHINE),
        "versions": {"python": "3.11.7", "fastppo": "0.1.0", "torch": "2.13.0", "triton": None},
        "conditions": {"load": [0.5, 0.4, 0.3], "env": {"OMP_NUM_THREADS": "1"}},
        "results": results,
        "failures": [],
        **extra,
    }


def train_entry(
    env_id: str,
    impl: str,
    rate: float,
    base: tuple[str, float] | None,
    rng: np.random.Generator,
    *,
    rounds: int = 8,
    phases: bool = True,
) -> Record:
    samples = (rate * rng.normal(1, 0.03, rounds)).tolist()
    seconds = [1.0 + 0.1 * i for i in range(rounds)]
    launch = {
        "order": 0,
        "samples": samples,
        "seconds": seconds,
        "at": [12.0 * i + 3 for i in range(rounds)],
        "rounds": list(range(rounds)),
    }
    several = rounds > 1
    ratio = None
    if base is not None:
        value = rate / base[1]
        ends = (0.97 * value, 1.04 * value) if several else (None, None)
        ratio = {"base": base[0], "value": value, "low": ends[0], "high": ends[1], "rounds": rounds}
    interval = {
        "value": float(np.median(samples)),
        "low": min(samples) if several else None,
        "high": max(samples) if several else None,
    }
    detail = train_detail(env_id, impl, rate, base, sum(seconds) if phases else None)
    return {
        "id": f"train/{env_id}/8x128",
        "impl": impl,
        "unit": "env_steps/s",
        "better": "higher",
        "clock": "wall",
        "launches": [launch],
        "train": detail | {"env_steps_per_s": interval, "ratio": ratio},
    }


def train_detail(
    env_id: str, impl: str, rate: float, base: tuple[str, float] | None, wall: float | None
) -> Record:
    ceilings = {"envpool": 3.1 * rate if base is None else 6.2 * base[1], "rollout": 2.1 * rate}
    split = dict(zip(PHASES, (0.45, 0.2, 0.02, 0.01, 0.3, 0.005, 0.015), strict=True))
    return {
        "env_id": env_id,
        "recipe": "8x128",
        "frame_skip": 4,
        "seed": 1,
        "config": Config(env_id=env_id).to_dict(),
        "work": dict(WORK),
        "info": {"version": "2.9.2"},
        "mismatch": [],
        "frames_per_s": 4 * rate,
        "ceilings": ceilings,
        "shares": {name: rate / limit for name, limit in ceilings.items()},
        "phases": {k: v * wall for k, v in split.items()} | {"wall": wall} if wall else None,
        "wall": {"cold_start_s": 4.5, "compile_s": 0.7, "cold_total_s": 130.0},
        "amortised": {str(n): rate * n / (n + 4.5 * rate) for n in (10**6, 10**7)},
        "memory": {"process_peak_bytes": 800 * 2**20, "device_peak_bytes": None},
        "steady": {"reached": True, "index": 3},
        "threads": {"env": 2, "torch": 1, "tried": {"1": rate, "2": 0.8 * rate}},
        "learning": "verified" if impl == "reference" else "not verified",
    }


def make_hard(record: Record, rng: np.random.Generator) -> None:
    """Failures, missing phases, other work, no steady state, one sample, huge and tiny rates."""
    sb3 = record["results"][2]["train"]
    sb3["phases"], sb3["mismatch"] = None, ["parameters 1686180 and 1700000 <b>"]
    sb3["work"]["parameters"] = 1_700_000
    sb3["steady"]["reached"] = False
    record["results"] += [
        train_entry("Ant-v4", "fastppo", 3.2e9, None, rng, rounds=1),
        train_entry("Ant-v4", "sb3", 2e-5, ("fastppo", 3.2e9), rng, phases=False),
    ]
    record["failures"] = [
        {"id": "train/Pong-v5/8x128", "impl": "cleanrl", "reason": f"{HOSTILE}\x1b[31m\x00"},
        {"id": "train/Walker2d-v4/8x128", "impl": "sb3", "reason": "crashed: exit code -9"},
    ]


RATES = {
    "fastppo": 2.3, "reference": 1.0, "sb3": 0.61, "sbx": 1.32, "rl_games": 1.1, "torchrl": 0.48,
    "tianshou": 0.44, "leanrl": 1.61, HOSTILE: 0.9,
}  # fmt: skip


@pytest.fixture
def reported(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """What `fastppo report` prints of a result file, but for the file's name."""

    def printed(path: Path) -> str:
        capsys.readouterr()
        print_results([result.read(path)])
        return capsys.readouterr().out

    return printed


@pytest.fixture(scope="session")
def train_record() -> Callable[..., Record]:
    """Two environments, by default with nine implementations, one of them of a hostile name.

    `speed` multiplies the rates of an implementation, `hard` adds failures, missing phases, other
    work, one with a single sample, and rates that are huge or tiny.
    """

    def make(
        speed: dict[str, float] | None = None,
        *,
        seed: int = 0,
        hard: bool = False,
        names: tuple[str, ...] = tuple(RATES),
        rounds: int = 8,
    ) -> Record:
        rng = np.random.default_rng(seed)
        results = []
        for env_id, scale in (("Pong-v5", 3400.0), ("CartPole-v1", 48_000.0)):
            for name in names:
                rate = scale * RATES[name] * (speed or {}).get(name, 1.0)
                base = None if name == "reference" else ("reference", scale)
                results.append(train_entry(env_id, name, rate, base, rng, rounds=rounds))
        record = top("train", results)
        if hard:
            make_hard(record, rng)
        return record

    return make


def learn_curve(seed: int, pace: float, wall: float, rng: np.random.Generator) -> Record:
    steps = np.linspace(2_000, 200_000, 60)
    climb = 1 / (1 + np.exp(-(steps * pace - 60_000) / 14_000))
    returns = 20 + 480 * climb + rng.normal(0, 9, 60)
    there = np.flatnonzero(returns >= 475)
    at = float(steps[there[0]]) if there.size else None
    return {
        "seed": seed,
        "env_steps": steps.tolist(),
        "wall_s": (steps / 200_000 * wall).tolist(),
        "returns": [None, *returns[1:].tolist()],
        "steps_to_threshold": at,
        "seconds_to_threshold": None if at is None else at / 2e5 * wall,
        "total_steps": 200_000,
        "total_s": wall,
    }


def learn_entry(impl: str, curves: list[Record]) -> Record:
    final = [curve["returns"][-1] for curve in curves]
    middle = float(np.mean(sorted(final)[1:-1]))
    return {
        "id": "learn/CartPole-v1/8x128",
        "impl": impl,
        "unit": "return",
        "better": "higher",
        "clock": "wall",
        "launches": [{"order": i, "seed": i + 1, "samples": [x]} for i, x in enumerate(final)],
        "learn": {
            "env_id": "CartPole-v1",
            "config": Config(env_id="CartPole-v1").to_dict(),
            "work": dict(WORK),
            "threshold": 475.0,
            "curves": curves,
            "final_iqm": {"value": middle, "low": min(final), "high": max(final)},
        },
    }


@pytest.fixture(scope="session")
def learn_record() -> Record:
    """Two implementations, five seeds each; one seed of the second never gets there."""
    rng = np.random.default_rng(1)
    results = []
    for impl, speed, wall in (("fastppo", 1.0, 90.0), ("sb3", 0.7, 260.0)):
        paces = [speed * rng.normal(1, 0.15) for _ in range(5)]
        paces[4] /= 3 if impl == "sb3" else 1
        curves = [learn_curve(i + 1, pace, wall, rng) for i, pace in enumerate(paces)]
        results.append(learn_entry(impl, curves))
    parity = {
        "id": "learn/CartPole-v1/8x128",
        "impl": "sb3",
        "verdict": "cannot tell",
        "reasons": ["steps: too wide <i>"],
    }
    curve = {"impl": "sb3", "fractions": [1.0, 0.8, 0.6], "low": [1, 0.4, 0], "high": [1, 1, 1]}
    scale = "0: the base untrained, 1: the threshold"
    profile = {"scale": scale, "taus": [0.0, 0.5, 1.0], "curves": [curve]}
    return top("learn", results, comparison={"parity": [parity], "profile": profile})


@pytest.fixture(scope="session")
def kernel_record() -> Callable[..., Record]:
    """GAE and a loss at a few sizes; `speed` multiplies the speed of ours, `copy` of copies."""

    def make(speed: float = 1.0, copy: float = 1.0, seed: int = 0, rounds: int = 15) -> Record:
        rng = np.random.default_rng(seed)
        results = []
        for operation, fixed, growing, sizes in (
            ("gae", {"T": 128}, "N", (8, 256, 4096)),
            ("categorical", {"A": 6}, "B", (256, 8192, 65_536)),
            ("categorical", {"A": 18}, "B", (256, 8192)),
        ):
            for size in sizes:
                shape = {**fixed, growing: size}
                label = " ".join(f"{k}={v}" for k, v in shape.items())
                for impl, factor in (("fastppo", 1 / speed), ("eager", 12.0), ("copy", 0.3 / copy)):
                    seconds = factor * (8e-6 + 1.2e-9 * size * 128)
                    results.append(
                        {
                            "id": f"{operation}[{label}]",
                            "operation": operation,
                            "shape": shape,
                            "size": size * fixed.get("T", 1),
                            "bytes": size * 100,
                            "impl": impl,
                            "unit": "s",
                            "better": "lower",
                            "clock": "wall",
                            "launches": [
                                {
                                    "order": 0,
                                    "samples": (seconds * rng.normal(1, 0.02, rounds)).tolist(),
                                }
                            ],
                        }
                    )
        return top("kernel", results)

    return make


@pytest.fixture(scope="session")
def env_record() -> Record:
    """EnvPool over twelve settings."""
    rng = np.random.default_rng(2)
    results = []
    for num_envs in (8, 64, 256):
        for batch_size in (num_envs, num_envs // 4):
            for num_threads in (1, 2):
                rate = 9000 * num_threads**0.8 * (1 + np.log2(num_envs) / 9)
                rate *= 1.15 if batch_size < num_envs else 1.0
                results.append(
                    {
                        "id": f"env/Pong-v5/n{num_envs}-b{batch_size}-t{num_threads}",
                        "impl": "envpool",
                        "unit": "env_steps/s",
                        "better": "higher",
                        "clock": "wall",
                        "launches": [
                            {"order": 0, "samples": (rate * rng.normal(1, 0.04, 8)).tolist()}
                        ],
                        "env": {
                            "env_id": "Pong-v5",
                            "num_envs": num_envs,
                            "batch_size": batch_size,
                            "num_threads": num_threads,
                        },
                    }
                )
    return top("env", results)


@pytest.fixture(scope="session")
def gpu_record(kernel_record: Callable[..., Record]) -> Record:
    """A GPU check: kernels, correctness with one failure, training with one that did not run."""
    kernels = kernel_record()["results"]
    for entry in kernels:
        entry["clock"] = "cold"
    return top(
        "gpu-check",
        kernels,
        correctness=[
            {"name": "gae T=1", "passed": True, "reason": None},
            {"name": "adam P=33", "passed": False, "reason": "differs by 0.1"},
        ],
        training=[
            {"env_id": "Pong-v5", "num_envs": 64, "backend": "triton", "updates": 12,
             "env_steps_per_s": 61_000.0, "samples": [60_000.0, 62_000.0],
             "phase_shares": {"env": 0.7, "update": 0.3}},
            {"env_id": "HalfCheetah-v4", "not_measured": "no module named envpool"},
        ],
    )  # fmt: skip


@pytest.fixture(scope="session")
def every_kind(
    train_record: Callable[..., Record],
    learn_record: Record,
    kernel_record: Callable[..., Record],
    env_record: Record,
    gpu_record: Record,
) -> list[Record]:
    """A file of every kind, the training one with everything that can be odd."""
    return [train_record(hard=True), learn_record, kernel_record(), env_record, gpu_record]
