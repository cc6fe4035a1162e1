"""What an implementation under test says, and how: the child's side of `fastppo bench`.

Any program joins: it reads its request from the environment variable FASTPPO_BENCH and prints one
JSON object per line (docs/implementations.md). `Reporter` does that for programs in Python. Only
the standard library is imported, because it also runs in the environments of other libraries.
"""

import json
import math
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

VARIABLE = "FASTPPO_BENCH"
CLOCK_VARIABLE = "FASTPPO_BENCH_CLOCK"
"""Number of an open file that holds the seconds for which the parent has paused us (a double)."""
CEILINGS = ("envpool", "rollout", "update")
PHASES = ("env", "policy", "copy", "gae", "update", "logging", "other")
WORK_FIELDS = (
    "parameters",
    "forward_flops",
    "rows_per_update",
    "minibatch_rows",
    "epochs",
    "gradient_steps_per_update",
    "precision",
    "obs_bytes",
    "trains_on_reset_rows",
    "wrappers",
    "network",
)
TRIAL_SECONDS = 0.5
"""Of whole updates per number of torch threads tried."""
WORTH = 1.2
"""More threads must be this many times faster to be taken: when anything else wants a core, a
barrier of torch's threads takes 8 ms instead of microseconds (docs/performance.md), and what was 7%
faster in the trial was seen 30 times slower afterwards."""
ATARI = ("episodic_life", "fire_reset", "frame_skip", "frame_stack", "noop_max",
         "repeat_action_probability")  # fmt: skip


def read_request() -> dict[str, Any]:
    """What to train: env_id, seed, device, config, env_threads, torch_threads (to be tried)."""
    if VARIABLE not in os.environ:
        sys.exit(f"{VARIABLE} is not set: this program is started by `fastppo bench train`")
    request: dict[str, Any] = json.loads(os.environ[VARIABLE])
    return request


def wrappers(config: Mapping[str, Any], *, atari: bool) -> list[str]:
    """What stands between the game and the learner, sorted, as the manifest names it."""
    names = [name for name in ("norm_obs", "norm_reward", "sign_reward") if config[name]]
    if atari:
        names += [f"{name}={config[name]}" for name in ATARI]
    if config["max_episode_steps"] is not None:
        names.append(f"max_episode_steps={config['max_episode_steps']}")
    return sorted(names)


def network(config: Mapping[str, Any], *, image: bool) -> str:
    """The network of a config, as the manifest names it.

    Args:
        image: the observation is an image that the Nature CNN reads.
    """
    trunks = "one trunk" if config["shared_trunk"] else "two trunks"
    if image and config["network"] != "mlp":
        return f"nature_cnn 512, {trunks}"
    widths = "-".join(str(width) for width in config["hidden_sizes"])
    return f"mlp {widths} {config['activation']}, {trunks}"


def precision(*, image: bool, on_gpu: bool) -> str:
    """How products round by torch's settings: float32, tf32, or its default, which has both."""
    if not on_gpu:
        return "float32"
    from torch.backends import cuda, cudnn

    products, convolutions = cuda.matmul.allow_tf32, cudnn.allow_tf32 and image
    if products:
        return "tf32"
    return "float32, convolutions tf32" if convolutions else "float32"


def forward_flops(forward: Callable[..., Any], *inputs: Any) -> int:
    """Twice the multiply-adds of the linear and convolution layers in one call, by torch's count.

    Args:
        forward: a torch module, or a function of some.
        inputs: of one observation (batch 1).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(*inputs)
    return int(counter.get_total_flops())


class Reporter:
    """Prints the contract's lines, and sends whatever else is printed to stderr.

    Args:
        request: as read; with more than one `torch_threads` the first updates try each, and the
            fastest is kept.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._stdout = os.fdopen(os.dup(1), "w")
        sys.stdout.flush()
        os.dup2(2, 1)
        file = os.environ.get(CLOCK_VARIABLE)
        self._paused = None if file is None else mmap.mmap(int(file), 8, prot=mmap.PROT_READ)
        self._latest = -math.inf
        self._candidates: list[int] = list(request["torch_threads"])
        many = len(self._candidates) > 1
        self._trial = _Trial(self._candidates, self.clock) if many else None

    def clock(self) -> float:
        """Seconds on a clock that stands still while the parent lets others run: for `phases`.

        It never goes back: the parent counts a pause from before its signal arrives, so the time
        between the two, in which this process still ran, is taken off afterwards.
        """
        paused, before = self._paused_s(), math.nan
        while paused != before:  # a pause may fall between the two clocks
            before, now = paused, time.perf_counter()
            paused = self._paused_s()
        self._latest = max(self._latest, now - paused)
        return self._latest

    def _paused_s(self) -> float:
        return 0.0 if self._paused is None else float(struct.unpack("d", self._paused[:8])[0])

    def ready(self, work: Mapping[str, Any], info: Mapping[str, Any] | None = None) -> None:
        """Says that everything is built; the next thing is the first update.

        Args:
            work: the manifest, every field of WORK_FIELDS.
            info: anything else worth a place in the result file.

        Raises:
            ValueError: the manifest has other fields.
        """
        if set(work) != set(WORK_FIELDS):
            raise ValueError(f"work: fields {sorted(set(work) ^ set(WORK_FIELDS))} odd or missing")
        tunes = self._trial is not None
        self._print(event="ready", work=dict(work), info=dict(info or {}), tunes=tunes)
        if self._candidates:
            _set_torch_threads(self._candidates[0])
        if self._trial is not None:
            self._trial.start()

    def update(
        self,
        *,
        env_steps: int,
        episodes: int = 0,
        return_mean: float | None = None,
        phases: Mapping[str, float] | None = None,
        ceiling: str | None = None,
    ) -> None:
        """Says that an update is done; on a GPU waits for it first.

        Args:
            env_steps: transitions of this update; reset rows do not count.
            episodes: games that ended in it.
            return_mean: their mean raw return.
            phases: seconds by names of PHASES, taken with `clock`.
            ceiling: which one, where no trainer runs but a part of it.
        """
        memory = _synchronise()
        line: dict[str, Any] = {"event": "update", "env_steps": env_steps, "episodes": episodes}
        if return_mean is not None:
            line["return_mean"] = return_mean
        if phases is not None:
            line["phases"] = dict(phases)
        if ceiling is not None:
            line["ceiling"] = ceiling
        if memory is not None:
            line["device_memory_bytes"] = memory
        self._print(**line)
        if self._trial is not None and self._trial.add(env_steps):
            rates, best = self._trial.rates, self._trial.best()
            _set_torch_threads(best)
            self._print(event="tuned", torch_threads=best, rates={str(k): rates[k] for k in rates})
            self._trial = None

    def error(self, message: str) -> None:
        """Says why it cannot go on, in one line; the program should then exit with code 3."""
        self._print(event="error", message=" ".join(message.split()))

    def _print(self, **line: Any) -> None:
        try:
            self._stdout.write(json.dumps(line) + "\n")
            self._stdout.flush()
        except BrokenPipeError:  # nobody listens any more
            os._exit(0)


class _Trial:
    """Runs each number of torch threads for a while.

    The first update of all compiles, and the first with other threads starts them: neither counts,
    but that an update of a second or more need not wait for threads that start in milliseconds.
    """

    def __init__(self, candidates: Sequence[int], clock: Callable[[], float]) -> None:
        self._left = list(candidates)
        self._clock = clock
        self.rates: dict[int, float] = {}

    def start(self) -> None:
        _set_torch_threads(self._left[0])
        self._warm, self._steps, self._begin = False, 0, self._clock()

    def add(self, env_steps: int) -> bool:
        """Books an update; true once every candidate has its rate."""
        now = self._clock()
        if not self._warm:
            self._warm = True
            if not self.rates or now - self._begin < 1.0:
                self._begin = now
                return False
        self._steps += env_steps
        if now - self._begin < TRIAL_SECONDS:
            return False
        self.rates[self._left.pop(0)] = self._steps / (now - self._begin)
        if self._left:
            self.start()
        return not self._left

    def best(self) -> int:
        """The fewest threads, unless more of them are WORTH it."""
        chosen, *others = self.rates  # in the order of the request: ascending
        for threads in others:
            if self.rates[threads] > WORTH * self.rates[chosen]:
                chosen = threads
        return chosen


def _set_torch_threads(threads: int) -> None:
    torch = sys.modules.get("torch")  # an implementation without torch has nothing to set
    if torch is not None:
        torch.set_num_threads(threads)


def _synchronise() -> int | None:
    """Waits for torch's GPU; its peak memory, or None where there is none in use."""
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated())
