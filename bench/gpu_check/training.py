"""Training on the device, in turns with EnvPool alone and with the textbook implementation."""

from collections.abc import Callable
from statistics import median
from time import monotonic, perf_counter
from typing import Any

import torch

WORKLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "Breakout-v5-8": ("Breakout-v5", {"num_envs": 8, "num_steps": 128}),
    "Breakout-v5-128": ("Breakout-v5", {"num_envs": 128, "num_steps": 128}),
    "HalfCheetah-v4-256": ("HalfCheetah-v4", {"num_envs": 256, "num_steps": 64}),
    "Pong-v5-8": ("Pong-v5", {"num_envs": 8, "num_steps": 128}),
}
"""Task and sizes by name; the first is the one that others have published (LeanRL, on an H100)."""
WARM_UP = 3
"""Updates before the clock starts: compilation, capture, and one replay."""
SLICE_S = 0.5
"""Of one way before the next has its turn."""


def measure(
    name: str, device: torch.device, deadline: float, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Env steps/s of whole updates, of EnvPool alone and of the reference, or why there are none.

    Args:
        deadline: on time.monotonic's clock; at least one slice of each is measured.
        keep: takes the rates, and again with the counts of launches, which a profiler takes longer
            to get.
    """
    env_id, sizes = WORKLOADS[name]
    try:
        import envpool  # noqa: F401

        from fastppo import presets
        from fastppo.bench.launch.ceilings import RandomActions
        from fastppo.bench.reference import ReferenceTrainer
        from fastppo.config import Config
        from fastppo.tasks import describe
        from fastppo.trainer import Trainer
    except ImportError as error:
        keep({"name": name, "env_id": env_id, "not_measured": str(error)})
        return
    preset = presets.PRESETS[presets.preset_for(describe(env_id))]
    settings = preset | sizes | {"total_timesteps": 10**9}
    config = Config(env_id=env_id, device=str(device), **settings)
    trainer = Trainer(config)
    env_threads = trainer.thread_plan.env_threads
    alone = RandomActions(config, env_threads)
    reference = ReferenceTrainer(config, env_threads=env_threads)
    updates: list[dict[str, Any]] = []

    def train() -> int:
        updates.append(trainer.run_update())
        return int(updates[-1]["env_steps"])

    ways: dict[str, Callable[[], int]] = {
        "fastppo": train,
        "envpool": alone.run,
        "reference": lambda: int(reference.run_update()["env_steps"]),
    }
    try:
        for _ in range(WARM_UP):
            train()
        ways["reference"]()
        updates.clear()
        samples: dict[str, list[float]] = {way: [] for way in ways}
        while not samples["reference"] or monotonic() < deadline:
            for way, step in ways.items():
                begin, steps = perf_counter(), 0
                while steps == 0 or perf_counter() - begin < SLICE_S:
                    steps += step()
                samples[way].append(steps / (perf_counter() - begin))
        record = _record(name, env_id, config, trainer, updates, samples)
        keep(record)
        if device.type == "cuda":
            keep(record | {"per_update": _launches(trainer)})
    finally:
        trainer.close()
        reference.close()


def _record(
    name: str,
    env_id: str,
    config: Any,
    trainer: Any,
    updates: list[dict[str, Any]],
    samples: dict[str, list[float]],
) -> dict[str, Any]:
    total = sum(u["time/total"] for u in updates)
    phases = sorted(key for key in updates[0] if key.startswith("time/") and key != "time/total")
    returns = [u["episode/return"] for u in updates if "episode/return" in u]
    rivals = {
        rival: median(a / b for a, b in zip(samples["fastppo"], samples[rival], strict=True))
        for rival in ("envpool", "reference")
    }
    return {
        "name": name,
        "env_id": env_id,
        "num_envs": config.num_envs,
        "num_steps": config.num_steps,
        "backend": trainer.backend,
        "engine": trainer.engine.name,
        "precision": trainer.precision,
        "threads": [trainer.thread_plan.env_threads, trainer.thread_plan.torch_threads],
        "updates": len(updates),
        "env_steps_per_s": median(samples["fastppo"]),
        "samples": samples,
        "of_envpool": rivals["envpool"],
        "times_reference": rivals["reference"],
        "return": returns[-1] if returns else None,
        "phase_shares": {key[5:]: sum(u[key] for u in updates) / total for key in phases},
        "us_per_step": {
            key[5:]: 1e6 * sum(u[key] for u in updates) / len(updates) / config.num_steps
            for key in phases
        },
    }


def _launches(trainer: Any) -> dict[str, dict[str, int]]:
    """What the host asks of the device in one rollout, and in one update behind it."""
    from torch.profiler import ProfilerActivity, profile

    counts = {}
    parts = {
        "rollout": trainer.collect,
        "update": lambda: trainer.engine.update(trainer.rollout, trainer.update).to_host(),
    }
    for part, work in parts.items():
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            work()
        kinds = {"launches": "LaunchKernel", "graphs": "GraphLaunch", "copies": "cudaMemcpy",
                 "syncs": "StreamSynchronize", "event_syncs": "EventSynchronize"}  # fmt: skip
        events = profiler.key_averages()
        counts[part] = {
            kind: sum(event.count for event in events if called in event.key)
            for kind, called in kinds.items()
        }
    return counts
