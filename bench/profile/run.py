"""Measures a few updates with and without torch.profiler, and the ceilings."""

import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fastppo import threads
from fastppo.bench.launch.pools import Setting, Stepper, open_pool
from fastppo.bench.profile import trace as profile_trace
from fastppo.bench.profile.session import Update, read_events, timed_update, traced_update
from fastppo.bench.profile.trace import Event, Trace
from fastppo.bench.profile.verdict import Facts, split_time
from fastppo.cgroups import available_cores
from fastppo.config import Config
from fastppo.engines import choose
from fastppo.errors import Interrupted
from fastppo.signals import StopRequest
from fastppo.tasks import spec_of
from fastppo.trainer import Trainer

WARM_UP = 2
ENV_SECONDS = 0.3
"""Of EnvPool alone, per round."""
CEILINGS = {
    "envpool_rate": "envpool", "matmul_flops_per_s": "matmul", "copy_bytes_per_s": "copy"
}  # fmt: skip
"""Where the verdict finds each."""


@dataclass(slots=True)
class Profile:
    """A run, measured: position i of every list is round i."""

    config: Config
    device: torch.device
    backend: str
    plan: threads.ThreadPlan
    frame_skip: int
    uses_cnn: bool
    plain: list[Update]
    profiled: list[Update]
    ceilings: dict[str, list[float]]
    """envpool [env_steps/s], matmul [FLOP/s], copy [bytes/s]."""
    traces: list[Trace]
    flops: int
    """Of one update: matrix products and convolutions, acting included."""
    memory: dict[str, int]
    """Peak bytes: `allocator` torch's (on a CPU what one update adds), `process`."""

    @property
    def trace(self) -> Trace:
        """All profiled updates together."""
        return profile_trace.merge(self.traces)

    def overhead(self) -> float:
        """Part by which the profiler lengthens an update, from the pairs of the rounds."""
        pairs = zip(self.profiled, self.plain, strict=True)
        return median(traced.wall_s / plain.wall_s for traced, plain in pairs) - 1.0

    def phase_seconds(self) -> dict[str, float]:
        """Mean seconds of an update by phase, and `wall`, without the profiler."""
        means = {name: fmean(u.phases[name] for u in self.plain) for name in self.plain[0].phases}
        return means | {"wall": fmean(u.wall_s for u in self.plain)}

    def keep(self, rounds: int) -> None:
        """Drops what there is of later rounds."""
        lists: list[list[Any]] = [self.plain, self.profiled, self.traces, *self.ceilings.values()]
        for samples in lists:
            del samples[rounds:]

    def facts(self) -> Facts:
        """Means per update, for the verdict."""
        config, trace, count = self.config, self.trace, len(self.traces)
        on_gpu = self.device.type == "cuda"
        compute, memory, product = self._work(trace)
        wall = fmean(update.wall_s for update in self.plain)
        env = fmean(update.phases["env"] for update in self.plain)
        auto = replace(config, engine="auto")
        fastest = choose(auto, spec_of(config), self.backend, self.device).name
        own_us = sum(operator.self_us for operator in trace.operators.values())
        kinds = ("HtoD", "DtoH", "DtoD") if on_gpu else ("host",)
        return Facts(
            env_id=config.env_id,
            on_gpu=on_gpu,
            cores=available_cores(),
            num_envs=config.num_envs,
            num_minibatches=config.num_minibatches,
            widths=None if self.uses_cnn else config.hidden_sizes,
            shared_trunk=config.shared_trunk,
            env_threads=self.plan.env_threads,
            torch_threads=self.plan.torch_threads,
            faster_engine=None if fastest == "eager" else fastest,
            env_steps=fmean(update.env_steps for update in self.plain),
            wall_s=wall,
            split=split_time(
                wall_s=wall,
                env_s=env,
                compute_s=compute / count,
                memory_s=memory / count,
                sync_s=trace.sync_idle_s / count,
            ),
            operators=trace.calls / count,
            operator_us=own_us / max(trace.calls, 1),
            launches=trace.launches / count,
            syncs=trace.syncs / count,
            copied_bytes=sum(trace.copies.get(kind, [0, 0])[1] for kind in kinds) / count,
            flops=self.flops,
            product_s=product / count,
            **{name: fmean(self.ceilings[key]) for name, key in CEILINGS.items()},
        )

    def _work(self, trace: Trace) -> tuple[float, float, float]:
        """Seconds of matrix products, of other work, and of products with the small ones."""
        if self.device.type == "cuda":
            products = trace.device.get("product", 0.0)
            return products, trace.busy_s - products, products
        return (
            trace.host_seconds("product"),
            trace.host_seconds("copy", "kernel", "other"),
            trace.host_seconds("product", small=True),
        )


def measure(config: Config, updates: int, folder: Path, stop: StopRequest) -> Profile:
    """Rounds of an update without the profiler, one with it, and a slice of each ceiling.

    Args:
        updates: rounds; after a stop those that were whole.
        folder: gets trace.json of the last profiled update.

    Raises:
        UserError: the environment, device or backend cannot be had.
        Interrupted: stopped in the first round; there is nothing to keep.
    """
    if config.engine == "auto":  # the profiler sees nothing inside the calls of the mlp engine
        config = replace(config, engine="eager")
    # all updates that follow must lie inside the run: the learning rate is annealed to its end
    needed = (WARM_UP + 2 + 2 * updates) * config.batch_size
    longer = replace(config, total_timesteps=max(config.total_timesteps, needed))
    trainer = Trainer(longer, check_stop=stop.check)
    num_envs, trace = config.num_envs, folder / "trace.json"
    setting = Setting(num_envs, num_envs, min(trainer.thread_plan.env_threads, num_envs))
    stepper = Stepper(open_pool(config, setting), setting)
    profile = Profile(
        config=config, device=trainer.device, backend=trainer.backend, plan=trainer.thread_plan,
        frame_skip=trainer.spec.frame_skip, uses_cnn=trainer.policy.uses_cnn, plain=[],
        profiled=[], ceilings={name: [] for name in CEILINGS.values()}, traces=[], flops=0,
        memory={},
    )  # fmt: skip
    try:
        for _ in range(WARM_UP):
            trainer.run_update()
        profile.memory = _memory(trainer, trace)
        turns = _turns(profile, trainer, stepper, trace)
        profile.flops = _flops(trainer)
        order = random.Random(config.seed)
        for done in range(updates):
            order.shuffle(turns)
            try:
                for turn in turns:
                    stop.check()
                    turn()
            except Interrupted:
                if not done:
                    raise
                profile.keep(done)
                break
    finally:
        trainer.close()
        stepper.close()
    return profile


def _turns(
    profile: Profile, trainer: Trainer, stepper: Stepper, trace: Path
) -> list[Callable[[], None]]:
    """What a round consists of; each adds one sample to the profile."""

    def profiled() -> None:
        profile.profiled.append(traced_update(trainer, trace))
        profile.traces.append(profile_trace.read(read_events(trace)))

    ceilings = profile.ceilings
    return [
        profiled,
        lambda: profile.plain.append(timed_update(trainer)),
        lambda: ceilings["envpool"].append(stepper.run(ENV_SECONDS).env_steps_per_s),
        lambda: ceilings["matmul"].append(matmul_flops_per_s(trainer.device)),
        lambda: ceilings["copy"].append(copy_bytes_per_s(trainer.device)),
    ]


def _flops(trainer: Trainer) -> int:
    """Of the matrix products and convolutions of one update, by their shapes."""
    counter: Any = FlopCounterMode(display=False)
    with counter:
        trainer.run_update()
    return int(counter.get_total_flops())


def _memory(trainer: Trainer, trace: Path) -> dict[str, int]:
    """Peak bytes of one update, by the allocator; warms the profiler up on the way."""
    on_gpu = trainer.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(trainer.device)
    traced_update(trainer, trace, memory=not on_gpu)
    if on_gpu:
        peak = torch.cuda.max_memory_allocated(trainer.device)
    else:
        peak = allocator_peak(read_events(trace))
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"allocator": peak, "process": process}


def allocator_peak(events: list[Event]) -> int:
    """Most bytes that torch's CPU allocator held at once beyond those at the trace's start."""
    changes = [e for e in events if e["name"] == "[memory]" and e["args"]["Device Type"] == 0]
    held = peak = 0
    for event in sorted(changes, key=lambda e: (e["ts"], e["args"]["Ev Idx"])):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return int(peak)


def matmul_flops_per_s(device: torch.device) -> float:
    """Rate of a large float32 matrix product, with this process's threads."""
    size, calls = (4096, 10) if device.type == "cuda" else (1024, 3)
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 2.0 * size**3 * calls / _seconds(device, lambda: torch.mm(a, b, out=out), calls)


def copy_bytes_per_s(device: torch.device) -> float:
    """Bytes read and written per second by a copy larger than any cache."""
    size, calls = (2**28, 10) if device.type == "cuda" else (2**26, 3)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2.0 * source.numel() * calls / _seconds(device, lambda: target.copy_(source), calls)


def _seconds(device: torch.device, work: Callable[[], object], calls: int) -> float:
    """Seconds of `calls` calls after one to warm up; by events on a GPU."""
    work()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - start
