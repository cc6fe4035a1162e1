"""The command line of `fastppo`."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastppo import __version__, paths, program, settings, streams
from fastppo.config import Options, WandbMode
from fastppo.errors import UserError
from fastppo.text import print_out

USAGE = """\
usage: fastppo COMMAND ...

  train ENV_ID            train a policy; --help lists every setting
  train --resume RUN_DIR  go on from the newest checkpoint of a run
  eval RUN_DIR            play whole episodes with a trained policy
  doctor                  what is installed, which kernels serve, the thread plan; --envs: tasks
  bench train [ENV_ID]    env steps per second, side by side with other libraries
  bench learn ENV_ID      return against env steps and time, over several seeds
  bench compare           how often the verdict of compare is wrong, by simulation
  bench coverage          how often the intervals of the tables cover, by simulation
  bench parity            how often the verdict of bench learn is wrong, by simulation
  bench env ENV_ID        EnvPool alone, over environments, batch sizes and threads
  bench kernels           every kernel beside eager and compiled torch and a plain copy
  bench peers install     the other libraries, each in a venv of its own
  profile ENV_ID          where the time of a few updates goes, and what bounds it
  compare A.json B.json   two result files, row by row
  report FILES            result files as a table, markdown, JUnit, or one HTML page
  track push | sync       stored results to Weights & Biases; upload of offline runs
  gate simulate           how often the performance gate's rule is wrong, by simulation
  static                  registers, spills, widths of every kernel, without a GPU; --check gates
  gpu-check --out DIR     all that only a GPU can tell: correctness, kernel times, rates

fastppo COMMAND --help explains a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainArgs(Options):
    """Train PPO on an EnvPool task. Defaults are those of the preset that fits the environment."""

    run_dir: Annotated[Path | None, paths.folder] = None
    """Folder of the run; None makes runs/<env>-<seed>-<stamp>."""
    resume: Annotated[Path | None, paths.source] = None
    """Go on from the newest checkpoint of this run; takes no ENV_ID and no settings."""
    quiet: bool = False
    """Show no progress."""
    show_config: bool = False
    """Print every resolved setting as JSON and stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalArgs:
    """Play whole episodes with a trained policy, with statistics frozen and raw returns."""

    run_dir: Annotated[Path, paths.source, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of the run."""
    episodes: int = 20
    """Episodes to play, shared evenly over up to 16 environments."""
    seed: int = 1
    """Seed of the evaluation's environments; they differ from the training's at every value."""
    stochastic: bool = False
    """Draw actions instead of taking the most likely one."""
    checkpoint: Annotated[Path | None, paths.source] = None
    """Evaluate this checkpoint instead of the run's newest."""
    device: str = "cpu"
    """cpu, cuda or auto."""
    json: bool = False
    """Print one JSON object."""
    wandb: WandbMode = "disabled"
    """Record the result in Weights & Biases, with the checkpoint as its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorArgs:
    """Show what is installed, which kernels serve, cores, GPU and thread plan."""

    envs: bool = False
    """List every EnvPool task as served, or refused with the reason."""
    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ENV_ID]")] = (
        "HalfCheetah-v4"
    )
    """Task to show the thread plan for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is one line on stderr."""
    args = list(sys.argv[1:] if argv is None else argv)
    return program.run(lambda: dispatch(args), is_process=argv is None)


def dispatch(args: list[str]) -> int:
    """Runs the command that the first argument names.

    Raises:
        UserError, MachineError, Diverged, Interrupted
    """
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "eval": _eval,
        "doctor": _doctor,
        "bench": _bench,
        "profile": lambda rest: _reach_up("fastppo.bench.profile.command", rest),
        **dict.fromkeys(("compare", "report", "track"), lambda rest: _serve(args[0], rest)),
        "gate": lambda rest: _reach_up("fastppo.bench.gate.__main__", rest),
        "static": _static,
        "gpu-check": _gpu_check,
    }
    if not args or args[0] in (*settings.HELP, "help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        print_out(f"fastppo {__version__}")
        return 0
    if args[0] in ("train", "eval", "doctor", "profile"):
        _refuse_unprintable(args)
    if args[0] not in commands:
        raise UserError(f"command: {args[0]!r} is unknown; use {', '.join(commands)}")
    return commands[args[0]](args[1:])


def _refuse_unprintable(args: list[str]) -> None:
    # tyro shows what it refuses as it is; bytes that are no UTF-8 (half a pair) it cannot show
    for arg in args:
        if any(not (c.isprintable() or "\ud800" <= c <= "\udfff") for c in arg):
            raise UserError(f"argument: {arg!r} holds characters that steer a terminal")


def _train(args: list[str]) -> int:
    if any(arg.partition("=")[0] == "--resume" for arg in args):
        typed = settings.parse(TrainArgs, args, "fastppo train")
        assert typed.resume is not None
        _refuse_settings_with_resume(typed.env_id, args)
        from fastppo.run import session

        session.resume(typed.resume, quiet=typed.quiet)
        return 0
    typed, config = settings.resolve(TrainArgs, args, "fastppo train")
    if typed.show_config:
        streams.needed()
        print(json.dumps(config.to_dict(), indent=2))
        return 0
    paths.check_fields(typed)
    from fastppo.run import session

    session.start(config, typed.run_dir, quiet=typed.quiet)
    return 0


def _refuse_settings_with_resume(env_id: str, args: list[str]) -> None:
    # as typed: a setting that equals its default may still differ from the run's
    typed = [arg.partition("=")[0] for arg in args if arg.startswith("--")]
    settings = [arg for arg in typed if arg not in ("--resume", "--quiet", "--no-quiet")]
    if env_id:
        settings.insert(0, env_id)
    if settings:
        raise UserError(f"resume: takes the run's own settings; leave out {', '.join(settings)}")


def _eval(args: list[str]) -> int:
    typed: EvalArgs = tyro.cli(EvalArgs, args=args, prog="fastppo eval")
    streams.needed()
    from fastppo import checkpoint
    from fastppo.run.evaluate import evaluate
    from fastppo.run.rundir import RunDir

    run = RunDir.open(typed.run_dir)
    config = run.read_config()
    path = typed.checkpoint or checkpoint.newest(run.checkpoints)
    state = checkpoint.load(path)
    result = evaluate(
        config,
        state,
        episodes=typed.episodes,
        seed=typed.seed,
        deterministic=not typed.stochastic,
        device=typed.device,
    )
    if typed.wandb != "disabled":
        from fastppo.tracking.wandb_eval import record_eval

        record_eval(config, typed.run_dir, path, result, typed.wandb)
    if typed.json:
        print(json.dumps(result))
    else:
        print_out(
            f"{result['env_id']}: return {result['mean_return']:.2f} +- {result['std_return']:.2f}"
            f" over {result['episodes']} episodes (min {result['min_return']:.1f}, max"
            f" {result['max_return']:.1f}, mean length {result['mean_length']:.0f}),"
            f" after {result['global_step']} env steps"
        )
    return 0


def _doctor(args: list[str]) -> int:
    typed: DoctorArgs = tyro.cli(DoctorArgs, args=args, prog="fastppo doctor")
    streams.needed()
    from fastppo.run import doctor

    if typed.envs:
        doctor.print_envs()
    else:
        doctor.print_report(typed.env_id)
    return 0


def _bench(args: list[str]) -> int:
    return _reach_up("fastppo.bench.__main__", args)


def _serve(name: str, args: list[str]) -> int:
    import importlib

    bench = importlib.import_module("fastppo.bench.__main__")
    module, about = bench.UPPER[name]
    return int(bench.serve(module, f"fastppo {name}", about, args))


def _static(args: list[str]) -> int:
    return _reach_up("fastppo.bench.static.command", args)


def _gpu_check(args: list[str]) -> int:
    return _reach_up("fastppo.bench.gpu_check.command", args)


def _reach_up(module: str, args: list[str]) -> int:
    # by name, at run time: the one place where fastppo reaches up to bench
    import importlib

    return int(importlib.import_module(module).main(args))
