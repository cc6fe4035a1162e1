"""Settings as typed on the command line, with the defaults that fit the environment."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from fastppo import arguments, settings_file
from fastppo.config import Config, Options
from fastppo.errors import UserError

Typed = TypeVar("Typed", bound=Options)


def resolve(kind: type[Typed], words: Sequence[str], program: str) -> Typed:
    """The options of a command that trains, with the preset that applies.

    Parsed twice: which defaults apply is known only once the environment is. Help waits for the
    second time too, to show the defaults that will apply. What a file of settings says goes before
    the preset, and what is typed before both. Where a run is resumed, its own settings apply and
    none is taken.

    Args:
        kind: Options and what the command adds to them.
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
    given = {} if path is None else settings_file.read(path)
    env_id = typed.env_id or given.get("env_id", "")
    if not env_id:
        parse(words)
        raise UserError("env_id: missing; name an EnvPool task, such as CartPole-v1")
    # EnvPool takes a second to import, which help without an environment need not wait for
    from fastppo import presets
    from fastppo.tasks import describe

    spec = describe(env_id)
    preset: Any = given.get("preset", "auto") if typed.preset == "auto" else typed.preset
    if preset == "auto":
        preset = presets.preset_for(spec)
    default = replace(kind(), **presets.PRESETS[preset] | given)
    return replace(parse(words, default), env_id=env_id, preset=preset)


def checked(typed: Options) -> Config:
    """The settings among the arguments.

    Raises:
        UserError: one is out of range, or sizes do not divide.
    """
    return Config(**{field.name: getattr(typed, field.name) for field in fields(Config)})


def _refuse_settings(env_id: str, words: Sequence[str]) -> None:
    # as typed: a setting that equals its default may still differ from the run's
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    others = [flag for flag in flags if flag not in ("--resume", "--quiet", "--no-quiet", "--help")]
    if env_id:
        others.insert(0, env_id)
    if others:
        raise UserError(f"resume: takes the run's own settings; leave out {', '.join(others)}")
