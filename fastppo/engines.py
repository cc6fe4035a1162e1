"""Which engine executes a run's two hot functions, `act` and `update`."""

from typing import Any, Protocol

from numpy.typing import NDArray

from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.policy import ActorCritic
from fastppo.ppo import EagerEngine, FlatAdam, UpdateStats
from fastppo.rollout import Rollout


class Engine(Protocol):
    """What a trainer asks of an engine; `ppo.EagerEngine` says what it means."""

    name: str
    policy: ActorCritic
    optimizer: FlatAdam

    def act(self, rollout: Rollout, t: int, step: int) -> NDArray[Any]:
        """Decides on row t of the rollout; the actions on the host, [N, ...]."""
        ...

    def bootstrap(self, rollout: Rollout) -> None:
        """Writes the values that acting left out, those of row T among them."""
        ...

    def update(self, rollout: Rollout, update: int) -> UpdateStats:
        """K epochs of minibatch steps on one rollout."""
        ...


def make_engine(policy: ActorCritic, config: Config, backend: str) -> Engine:
    """The engine that the config asks for.

    Args:
        backend: resolved, of the kernels.

    Raises:
        UserError: the engine asked for cannot run it; the message says why.
    """
    if config.engine == "eager":
        return EagerEngine(policy, config)
    reason: str | None = f"it runs on the numba kernels, and the backend is {backend}"
    if backend == "numba":
        from fastppo import mlp_engine  # numba need not be installed where torch serves

        reason = mlp_engine.refusal(policy)
        if reason is None:
            return mlp_engine.MlpEngine(policy, config)
    raise UserError(f"engine: 'mlp' cannot serve: {reason}; use eager")
