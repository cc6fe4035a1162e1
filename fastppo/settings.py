"""Settings as typed on the command line, with the defaults that fit the environment."""

from dataclasses import fields, replace
from typing import Any, TypeVar

import tyro

from fastppo.config import Config, Options
from fastppo.errors import UserError

HELP = ("-h", "--help")
Typed = TypeVar("Typed", bound=Options)


def parse(kind: type[Typed], args: list[str], program: str, default: Typed | None = None) -> Typed:
    """The options of a command; prints help or a usage error and exits where tyro does."""
    options: dict[str, Any] = {} if default is None else {"default": default}
    typed: Typed = tyro.cli(kind, args=args, prog=program, **options)
    return typed


def resolve(kind: type[Typed], args: list[str], program: str) -> tuple[Typed, Config]:
    """The options of a command that trains, and the checked settings among them.

    Parsed twice: which defaults apply is known only once the environment is. Help waits for the
    second time too, to show the defaults that will apply.

    Args:
        kind: Options and what the command adds to them.

    Raises:
        UserError: no environment, or a setting is off.
    """
    typed = parse(kind, [arg for arg in args if arg not in HELP], program)
    if not typed.env_id:
        parse(kind, args, program)
        raise UserError("env_id: missing; name an EnvPool task, such as CartPole-v1")
    # EnvPool takes a second to import, which help without an environment need not wait for
    from fastppo import presets
    from fastppo.envs import describe

    spec = describe(typed.env_id)
    preset: Any = presets.preset_for(spec) if typed.preset == "auto" else typed.preset
    defaults = replace(kind(), **presets.PRESETS[preset])
    typed = replace(parse(kind, args, program, defaults), preset=preset)
    return typed, Config(**{field.name: getattr(typed, field.name) for field in fields(Config)})
