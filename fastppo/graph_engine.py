"""The engine for a GPU: what `ppo.EagerEngine` queues op by op, captured once and then replayed.

A step of all environments is one launch: the staged observation crosses to the device, the policy
decides, the actions cross back. So is an update. The host's part of a step is to stage, to launch
and to wait once.

The first update runs op by op: it compiles every kernel variant, and allocates what lasts. Then all
is captured, each step on its own row of the rollout. The graphs share one pool of memory: they run
in the order in which they were captured, and what outlives them is outside the pool.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from fastppo.config import Config
from fastppo.normalize import RewardScaler
from fastppo.policy import ActorCritic
from fastppo.ppo import EagerEngine, UpdateStats
from fastppo.rollout import Rollout


class Capture:
    """Where graphs are captured: one stream, one pool of memory."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], None]) -> None:
        """Runs `work` on the stream as it is."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream().wait_stream(self.stream)

    def graph(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Captures `work`, which `run` has run before: nothing may be compiled meanwhile."""
        graph = torch.cuda.CUDAGraph()
        # not torch.cuda.graph: it collects garbage and empties the cache before each capture
        with torch.cuda.stream(self.stream):
            graph.capture_begin(self.pool)
            try:
                work()
            finally:
                graph.capture_end()
        return graph


class Program:
    """Device work at fixed addresses, run as it is until it is captured.

    Args:
        capture: None on a CPU, which has no graphs.
    """

    def __init__(self, work: Callable[[], None], capture: Capture | None) -> None:
        self.work = work
        self._where = capture
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif self._where is not None:
            self._where.run(self.work)
        else:
            self.work()

    def capture(self) -> None:
        """From here on the work is replayed; on a CPU nothing changes."""
        if self._where is not None:
            self._graph = self._where.graph(self.work)


class GraphEngine(EagerEngine):
    """Acts and updates by replaying what `EagerEngine` computes.

    Args:
        policy: on the training device; its parameters are moved into one flat buffer.
    """

    name = "graph"
    stops_early = False

    def __init__(self, policy: ActorCritic, config: Config) -> None:
        super().__init__(policy, config)
        self._bound: Rollout | None = None
        self._finishing: Program | None = None

    def act(self, rollout: Rollout, t: int, step: int) -> NDArray[Any]:
        """Decides on row t of the rollout, and writes actions, log-probs and values there.

        Returns:
            The actions on the host, [N, ...], until the next call.
        """
        self._bind(rollout)
        if t == 0:
            torch.add(self._rows, step, out=self._steps)
        self._acting[t]()
        if self._acted is not None:
            self._acted.record()
            self._acted.synchronize()
        actions: NDArray[Any] = self._actions.numpy()
        return actions

    def bootstrap(self, rollout: Rollout) -> None:
        """Writes the values of row T."""
        self._bind(rollout)
        self._bootstrapping()

    def finish(self, rollout: Rollout, reward_scaler: RewardScaler | None) -> None:
        """Scales rewards and computes advantages and returns."""
        if self._finishing is None:
            work = partial(super().finish, rollout, reward_scaler)
            self._finishing = Program(work, self._capture)
        self._finishing()

    def update(self, rollout: Rollout, update: int) -> UpdateStats:
        """K epochs of minibatch steps on one rollout."""
        self._bind(rollout)
        learning_rate = self.config.learning_rate_at(update)
        self.optimizer.note(learning_rate)
        self._learning_rate.fill_(learning_rate)
        for slot, order in zip(self._orders, rollout.orders(update), strict=True):
            slot.copy_(order)
        self._learning()
        if not self._captured and self._finishing is not None:
            self._capture_all()
        return UpdateStats(self._stats_names, self._stats)

    def programs(self) -> list[Program]:
        """All of an update's device work, in the order in which it runs."""
        assert self._finishing is not None
        return [*self._acting, self._bootstrapping, self._finishing, self._learning]

    def _bind(self, rollout: Rollout) -> None:
        """Makes the programs of this rollout, and what they read and write besides."""
        if self._bound is rollout:
            return
        config, device = self.config, rollout.device
        on_gpu = device.type == "cuda"
        self._bound = rollout
        self._captured = False
        self._capture = Capture() if on_gpu else None
        self._acted = torch.cuda.Event() if on_gpu else None
        self._actions = torch.empty_like(rollout.actions[0], device="cpu", pin_memory=on_gpu)
        # decisions before each row; 16 bytes apart, or the kernel would be compiled twice
        self._rows = torch.arange(config.num_steps, device=device)[:, None].repeat(1, 2)
        self._steps = torch.zeros_like(self._rows)
        self._learning_rate = torch.zeros((), device=device)
        shape = (config.update_epochs, config.num_minibatches, config.minibatch_size)
        self._orders = torch.zeros(shape, dtype=torch.int64, device=device)
        self._stats_names: tuple[str, ...] = ()
        self._stats = torch.zeros(0, device=device)
        self._acting = [
            Program(partial(self._act_on, rollout, t), self._capture)
            for t in range(config.num_steps)
        ]
        self._bootstrapping = Program(partial(super().bootstrap, rollout), self._capture)
        self._finishing = None
        self._learning = Program(partial(self._learn, rollout), self._capture)

    def _act_on(self, rollout: Rollout, t: int) -> None:
        """The device's part of a step."""
        self.decide(rollout, t, self._steps[t, 0])
        self._actions.copy_(rollout.actions[t], non_blocking=True)

    def _learn(self, rollout: Rollout) -> None:
        stats = self.learn(rollout, self._orders, self._learning_rate, self.config.clip_coef)
        if not self._stats_names:
            self._stats_names, self._stats = stats.names, torch.zeros_like(stats.values)
        self._stats.copy_(stats.values)

    def _capture_all(self) -> None:
        """Captures everything, in the order in which it will run."""
        self._captured = True
        if self._capture is not None:
            torch.cuda.synchronize()
        gc.collect()
        gc.disable()  # what it frees on the device would end a capture
        try:
            for program in self.programs():
                program.capture()
        finally:
            gc.enable()
