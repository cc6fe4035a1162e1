"""Settings as typed on the command line, with the defaults that fit the environment."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from fastppo import arguments, settings_file, token_config
from fastppo.config import Options, RunConfig, RunOptions
from fastppo.errors import UserError
from fastppo.token_config import TokenOptions

Typed = TypeVar("Typed", bound=RunOptions)
Checked = TypeVar("Checked", bound=RunConfig)


def resolve(kind: type[Typed], words: Sequence[str], program: str) -> Typed:
    """The options of a command that trains, with the preset that applies.

    Parsed twice: which defaults apply is known only once the environment is. Help waits for the
    second time too, to show the defaults that will apply. What a file of settings says goes before
    the preset, and what is typed before both. Where a run is resumed, its own settings apply and
    none is taken.

    Args:
        kind: the options, and what the command adds to them.
        program: the words before the arguments.

    Raises:
        UserError: an argument is off, or no environment is named.
        SystemExit: after --help.
    """

    def parse(words: Sequence[str], default: Typed | None = None) -> Typed:
        return arguments.read(kind, words, program, default=default, both_flags=True)

    typed = parse([word for word in words if word not in arguments.HELP])
    if getattr(typed, "resume", None) is not None:
        _refuse_settings(typed.env_id, words)
        return parse(words)
    path = getattr(typed, "config", None)
    # what the file has of the command's settings; of TrainArgs, those of Options
    given = {} if path is None else settings_file.read(path, _settings_of(kind))
    env_id = typed.env_id or given.get("env_id", "")
    if not env_id:
        parse(words)
        known = ", ".join(token_config.TASKS)
        named = f"one of {known}" if isinstance(typed, TokenOptions) else _AN_ENV
        raise UserError(f"env_id: missing; name {named}")
    if isinstance(typed, Options):
        asked = given.get("preset", "auto") if typed.preset == "auto" else typed.preset
        fitting, fixed = _preset(env_id, asked)
    else:
        env_id = token_config.task_name(env_id)
        fitting, fixed = token_config.TASKS[env_id], {"env_id": env_id}
    default = replace(kind(), **fitting | given | fixed)
    return replace(parse(words, default), **fixed)


def checked(typed: RunOptions, kind: type[Checked]) -> Checked:
    """The settings among the arguments.

    Raises:
        UserError: one is out of range, or sizes do not divide.
    """
    return kind(**{field.name: getattr(typed, field.name) for field in fields(kind)})


def _settings_of(kind: type[RunOptions]) -> type[RunOptions]:
    return TokenOptions if issubclass(kind, TokenOptions) else Options


def _preset(env_id: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The defaults that fit an EnvPool task, and what is then fixed."""
    # EnvPool takes a second to import, which help without an environment need not wait for
    from fastppo import presets
    from fastppo.tasks import describe

    spec = describe(env_id)
    if name == "auto":
        name = presets.preset_for(spec)
    return presets.PRESETS[name], {"env_id": env_id, "preset": name}


def _refuse_settings(env_id: str, words: Sequence[str]) -> None:
    # as typed: a setting that equals its default may still differ from the run's
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    others = [flag for flag in flags if flag not in ("--resume", "--quiet", "--no-quiet", "--help")]
    if env_id:
        others.insert(0, env_id)
    if others:
        raise UserError(f"resume: takes the run's own settings; leave out {', '.join(others)}")


_AN_ENV = "an EnvPool task, such as CartPole-v1"
