"""Tasks in our terms: which are served, and their shapes; EnvPool's, and those of one's own."""

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np

from fastppo.actions import ActionSpace
from fastppo.config import Config
from fastppo.errors import UserError

with warnings.catch_warnings():
    # importing the dm_control tasks draws warnings about GL that no training run can act on
    warnings.simplefilter("ignore")
    import envpool
    from envpool.registration import registry
    from gymnasium import spaces

# A bound this large is a type's limit and no bound: VizDoom's actions span [2e-308, 1.8e308].
UNBOUNDED = 1e30
OWN = "own/"
"""Begins the names of tasks that are no EnvPool task, and whose environments Python passes."""


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """Shapes and kinds of one task, in our terms."""

    env_id: str
    family: str
    """EnvPool's module: atari, mujoco, classic_control, box2d, ...; or own."""
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype[Any]
    """uint8 stays uint8, everything else becomes float32."""
    action_dim: int
    """Heads of a discrete action, or components of a continuous one."""
    nvec: tuple[int, ...] | None
    """Choices per head; None for a continuous action."""
    frame_skip: int

    @property
    def is_discrete(self) -> bool:
        return self.nvec is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return asdict(self) | {"obs_dtype": self.obs_dtype.name}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; KeyError, TypeError or ValueError where it is none."""
        nvec = values["nvec"]
        return cls(
            **values
            | {
                "obs_shape": tuple(map(int, values["obs_shape"])),
                "obs_dtype": np.dtype(values["obs_dtype"]),
                "nvec": None if nvec is None else tuple(map(int, nvec)),
            }
        )


class Refusal(Exception):
    """Why a task is not served."""


def all_env_ids() -> list[str]:
    """Every task id of the installed EnvPool."""
    return sorted(envpool.list_all_envs())


def describe(env_id: str) -> EnvSpec:
    """The shapes of an EnvPool task.

    Raises:
        UserError: unknown task (with near matches), or one that is refused (with the reason).
    """
    if env_id.startswith(OWN):
        raise UserError(
            f"env_id: {env_id!r} has environments of its own; pass them in Python, as in "
            "fastppo.train(envs=...) or fastppo.evaluate(run_dir, envs=...)"
        )
    if env_id not in registry.specs:
        raise UserError(
            f"env_id: {env_id!r} is no EnvPool task{_near_matches(env_id)} Environments of your "
            "own are passed in Python: fastppo.train(envs=...)"
        )
    try:
        return classify(env_id)
    except Refusal as refusal:
        remedy = "see `fastppo doctor --envs` for the tasks that are served"
        raise UserError(f"env_id: {env_id!r} is refused: {refusal}; {remedy}") from None


def spec_of(config: Config) -> EnvSpec:
    """Like `describe`, with the Atari options of this run."""
    spec = describe(config.env_id)
    if spec.family != "atari":
        return spec
    obs_shape = (config.frame_stack, *spec.obs_shape[1:])
    return replace(spec, obs_shape=obs_shape, frame_skip=config.frame_skip)


@cache
def classify(env_id: str) -> EnvSpec:
    """Like `describe` for a known id; raises Refusal with every reason at once."""
    try:
        raw = quietly(envpool.make_spec, env_id)
    except (ImportError, RuntimeError, OSError) as error:
        raise Refusal(f"EnvPool cannot build it here ({_first_line(error)})") from error
    obs, action = quietly(lambda: (raw.observation_space, raw.action_space))
    config = raw.config
    reasons = []
    if (players := getattr(config, "max_num_players", 1)) > 1:
        reasons.append(f"{players} players; one policy per environment is served")
    if masks := [key for key in raw._state_keys if key.endswith("action_mask")]:
        reasons.append(f"joint action mask ({masks[0]})")
    family = registry.specs[env_id][0].split(".")[1]
    spec = spec_of_spaces(env_id, family, obs, action, reasons)
    return replace(spec, frame_skip=int(getattr(config, "frame_skip", 1)))


def spec_of_spaces(
    env_id: str,
    family: str,
    obs: spaces.Space[Any],
    action: spaces.Space[Any],
    reasons: Sequence[str] = (),
) -> EnvSpec:
    """The shapes that the spaces of one environment say.

    Args:
        reasons: why it is refused, found before.

    Raises:
        Refusal: with every reason at once.
    """
    found = list(reasons)
    if isinstance(obs, spaces.Dict):
        found.append(f"dict observation ({', '.join(obs)})")
    elif not isinstance(obs, spaces.Box):
        found.append(f"observation {_kind(obs)} is not a Box")
    nvec: tuple[int, ...] | None = None
    try:
        nvec = _action_choices(action)
    except Refusal as refusal:
        found.append(str(refusal))
    if found:
        raise Refusal("; ".join(found))
    assert obs.shape is not None
    assert action.shape is not None
    return EnvSpec(
        env_id=env_id,
        family=family,
        obs_shape=tuple(obs.shape),
        obs_dtype=np.dtype(np.uint8 if obs.dtype == np.uint8 else np.float32),
        action_dim=len(nvec) if nvec is not None else int(np.prod(action.shape)),
        nvec=nvec,
        frame_skip=1,
    )


@cache
def action_space_of(env_id: str) -> ActionSpace:
    """What the environments of an EnvPool task that is served take."""
    raw = quietly(envpool.make_spec, env_id)
    dtype = raw.action_array_spec["action"].dtype
    space = quietly(lambda: raw.action_space)
    return ActionSpace.of(space, dtype, is_discrete=classify(env_id).is_discrete)


def _action_choices(action: spaces.Space[Any]) -> tuple[int, ...] | None:
    """Choices per head of a discrete action, None for a continuous one."""
    if isinstance(action, spaces.Discrete):
        return (int(action.n),)
    if isinstance(action, spaces.MultiDiscrete):
        return tuple(int(n) for n in action.nvec.reshape(-1))
    if not isinstance(action, spaces.Box):
        raise Refusal(f"action {_kind(action)} is not Discrete, MultiDiscrete or Box")
    low, high = (
        action.low.astype(np.float64).reshape(-1),
        action.high.astype(np.float64).reshape(-1),
    )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise Refusal("unbounded action")
    if max(np.abs(low).max(), np.abs(high).max()) >= UNBOUNDED:
        raise Refusal(f"unbounded action ([{low.min():.1e}, {high.max():.1e}])")
    if np.issubdtype(action.dtype, np.integer):
        if (high < low).any() or (high - low >= 2**16).any():
            raise Refusal(f"integer action with bounds [{low.min():.0f}, {high.max():.0f}]")
        return tuple(int(n) for n in high - low + 1)
    if (high <= low).any():
        raise Refusal(f"inverted action bounds ({low.tolist()} to {high.tolist()})")
    return None


@cache
def has_own_flag(env_id: str) -> bool:
    """Whether the game itself tells that it has ended, whatever the time limit says."""
    return "info:terminated" in quietly(envpool.make_spec, env_id)._state_keys


def _near_matches(env_id: str) -> str:
    by_lower = {known.lower(): known for known in registry.specs}
    near = difflib.get_close_matches(env_id.lower(), by_lower, n=3, cutoff=0.6)
    if not near:
        return "; `fastppo doctor --envs` lists them."
    return f"; did you mean {', '.join(by_lower[name] for name in near)}?"


def _kind(space: object) -> str:
    return type(space).__name__


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120]


def quietly(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Gymnasium warns that float64 bounds lose precision in float32: nothing a user can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)
