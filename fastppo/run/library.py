"""What Python programs call: train, load a policy, evaluate. `fastppo/__init__.py` names it.

Each does what the command of that name does, on the same run directories. A mistake raises
`UserError`, a ValueError of one line; where the machine fails it is `MachineError`.
"""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastppo import checkpoint as checkpoints
from fastppo import foreign, presets
from fastppo.config import Config, Options
from fastppo.devices import resolve_device
from fastppo.errors import Interrupted, UserError
from fastppo.own_envs import OwnEnvs
from fastppo.policy import is_image
from fastppo.run import evaluate as evaluation
from fastppo.run import session
from fastppo.run.rundir import RunDir
from fastppo.saved_policy import SavedPolicy
from fastppo.tasks import describe

Metrics = dict[str, Any]
IMAGE_SETTINGS = {"episodic_life": False, "sign_reward": False}
"""What the preset of Atari has for Atari alone."""


class Run:
    """A run directory: config.json, metrics.jsonl, checkpoints/.

    Raises:
        UserError: there is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = RunDir.open(Path(path))
        self.path = self._folder.path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def config(self) -> Config:
        """Every setting of the run."""
        return self._folder.read_config()

    def metrics(self) -> list[Metrics]:
        """What it logged, an object for every update so far."""
        return self._folder.read_metrics()

    def policy(self) -> SavedPolicy:
        """The policy of its newest checkpoint."""
        return load_policy(self.path)


def train(
    env_id: str | None = None,
    *,
    envs: Any = None,
    eval_envs: Any = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = True,
    on_update: Callable[[Metrics], None] | None = None,
    **settings: Any,
) -> Run:
    """Trains PPO, as `fastppo train` does.

    Args:
        env_id: EnvPool task; with `envs`, the run's name for them.
        envs: a Gymnasium vector environment to train on in place of EnvPool's; it resets on the
            next step, as is Gymnasium's default, and stays open.
        eval_envs: others of the same kind, for `eval_interval`.
        run_dir: folder of the run; None for runs/<env>-<seed>-<stamp>.
        resume: go on with this run; takes no settings.
        quiet: show no progress.
        on_update: is called after every update with its metrics; what it takes counts into no
            rate. An exception in it ends the run with a checkpoint.
        settings: fields of `Config`; the others are those of the preset that fits.

    Returns:
        The run, with its directory.

    Raises:
        UserError: a setting is unknown or out of range, or the task or envs are not served.
        MachineError: the disk, the memory or the device fails.
        Diverged: losses were not finite `max_skipped_steps` times.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
    """
    if resume is not None:
        given = {"env_id": env_id if envs is None else None, **settings, "run_dir": run_dir}
        odd = [name for name, value in given.items() if name in settings or value is not None]
        if odd:
            raise UserError(f"resume: takes the run's own settings; leave out {', '.join(odd)}")
    own = None if envs is None else OwnEnvs(envs, env_id)
    eval_own = None if eval_envs is None else OwnEnvs(eval_envs)
    extras = session.Extras(own, eval_own, on_update)
    with _as_keyboard_interrupt():
        if resume is not None:
            return Run(session.resume(Path(resume), quiet=quiet, extras=extras))
        config = _config(env_id, own, settings)
        path = None if run_dir is None else Path(run_dir)
        return Run(session.start(config, path, quiet=quiet, extras=extras))


def load_policy(
    run_dir: str | Path,
    *,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    seed: int = 1,
) -> SavedPolicy:
    """The policy of a run, callable on raw observations; see `SavedPolicy`.

    Args:
        checkpoint: a file of the run, or "best" where the run was evaluated; None for the newest.
        device: cpu, cuda or auto.
        seed: of the actions that are drawn.

    Raises:
        UserError: there is no run, or the checkpoint is damaged or of another run.
    """
    folder, config, state = _opened(run_dir, checkpoint)
    task = folder.read_task()
    return SavedPolicy(
        config, state, task["spec"], task["actions"], resolve_device(device), seed=seed
    )


def evaluate(
    run_dir: str | Path,
    *,
    envs: Any = None,
    episodes: int = 20,
    seed: int = 1,
    deterministic: bool = True,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    video: str | Path | None = None,
) -> dict[str, Any]:
    """Plays whole episodes, as `fastppo eval --json` does.

    Args:
        envs: plays in these; needed where the run was trained on environments of its own.
        episodes: shared evenly over the environments.
        deterministic: the most likely action rather than a draw.
        checkpoint: as in `load_policy`.
        video: films the episodes of the first environment into this .mp4 or .gif.

    Returns:
        Raw returns and their statistics: `returns`, `mean_return`, `std_return`, `mean_length`, ...

    Raises:
        UserError: there is no run, or the checkpoint or envs do not fit it.
        MachineError: an environment gave an episode without one finite step.
    """
    folder, config, state = _opened(run_dir, checkpoint)
    own = None if envs is None else OwnEnvs(envs)
    if own is not None:
        _check_shapes(own, folder)
    return evaluation.evaluate(
        config,
        state,
        episodes=episodes,
        seed=seed,
        deterministic=deterministic,
        device=device,
        own=own,
        video=None if video is None else Path(video),
    )


def _opened(run_dir: str | Path, file: str | Path | None) -> tuple[RunDir, Config, dict[str, Any]]:
    folder = RunDir.open(Path(run_dir))
    path = evaluation.checkpoint_of(folder, None if file is None else Path(file))
    config, state = folder.read_config(), checkpoints.load(path)
    checkpoints.check_run(state, config.to_dict())
    return folder, config, state


def _check_shapes(own: OwnEnvs, folder: RunDir) -> None:
    trained, given = folder.read_task()["spec"], own.spec
    for name in ("obs_shape", "obs_dtype", "action_dim", "nvec"):
        if getattr(trained, name) != getattr(given, name):
            raise UserError(
                f"envs: {name} {getattr(given, name)} is not the {getattr(trained, name)} that the "
                "policy was trained on"
            )


def _config(env_id: str | None, own: OwnEnvs | None, settings: dict[str, Any]) -> Config:
    """The preset that fits, and the settings over it."""
    known = {field.name for field in dataclasses.fields(Options)}
    odd = sorted(set(settings) - known)
    if odd:
        raise UserError(f"{odd[0]}: {foreign.setting_answer(odd[0], known)}")
    if own is not None:
        spec = own.spec
        settings = {"num_envs": own.num_envs} | settings
    elif env_id is None:
        raise UserError("env_id: missing; name an EnvPool task, such as CartPole-v1, or pass envs")
    else:
        spec = describe(env_id)
    name = settings.get("preset", "auto")
    if name == "auto":
        frames = own is not None and is_image(spec.obs_shape) and spec.obs_dtype == np.uint8
        name = "atari" if frames else presets.preset_for(spec)
    if name not in presets.PRESETS:
        raise UserError(f"preset: {name!r} is not one of auto, {', '.join(presets.PRESETS)}")
    fitting = presets.PRESETS[name]
    if own is not None:
        fitting = fitting | {key: value for key, value in IMAGE_SETTINGS.items() if key in fitting}
    sizes = settings.get("hidden_sizes")
    if isinstance(sizes, list):
        settings = settings | {"hidden_sizes": tuple(sizes)}
    return Config(**fitting | settings | {"env_id": spec.env_id, "preset": name})


@contextmanager
def _as_keyboard_interrupt() -> Iterator[None]:
    """Raises what Python raises after Ctrl-C."""
    try:
        yield
    except Interrupted as stopped:
        if stopped.exit_code != 128 + signal.SIGINT:
            raise
        raise KeyboardInterrupt from None
