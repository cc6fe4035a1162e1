"""Result files, `fastppo.result/1`: made, validated, written whole or not at all, and read back."""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from fastppo import files, machine
from fastppo.errors import MachineError, UserError, why
from fastppo.redact import redact
from fastppo.revision import revision
from fastppo.text import print_err

SCHEMA = "fastppo.result/1"
KINDS = ("kernel", "gpu-check", "train", "learn", "env", "profile", "static", "gate", "history",
         "tokens")  # fmt: skip
# What makes two machines different for a rate; memory and kernel version do not.
FINGERPRINT = ("cpu", "cores", "gpus")


def new(kind: str, results: Sequence[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    """A record of this machine, this code and this command.

    Args:
        kind: one of KINDS.
        results: the entries (docs/results-format.md).
        extra: further top-level fields, such as `failures`.
    """
    facts = machine.machine()
    return {
        "schema": SCHEMA,
        "kind": kind,
        "run_id": uuid.uuid4().hex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redact(sys.argv),
        "code": revision(),
        "machine": {"fingerprint": fingerprint(facts), **facts},
        "versions": machine.versions(),
        "conditions": {
            "load": list(os.getloadavg()),
            "env": machine.variables(),
        },
        "results": list(results),
        "failures": [],
        **extra,
    }


def fingerprint(facts: dict[str, Any]) -> str:
    """Names a machine: a hash of the facts in FINGERPRINT."""
    stable = json.dumps([facts[name] for name in FINGERPRINT], sort_keys=True)
    return hashlib.sha256(stable.encode()).hexdigest()[:16]


def write(path: Path, record: dict[str, Any]) -> None:
    """Validates and writes a record without its secrets; what was there before stays if that fails.

    Raises:
        MachineError: the disk refuses.
    """
    plain = redact(files.finite(record))
    try:
        wrong = problem(plain)
    except ImportError:  # a GPU host without a package registry; reading validates it elsewhere
        print_err(f"{path}: written without validation: jsonschema is missing")
        wrong = None
    if wrong is not None:
        raise AssertionError(f"a record of our own breaks {SCHEMA}: {wrong}")
    plain["digest"] = digest(plain)
    write_text(path, json.dumps(plain, indent=1, allow_nan=False) + "\n", "--json")


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record's content but for its digest: JSON, keys sorted, no spaces, ASCII."""
    content = {name: value for name, value in record.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: Path, text: str, option: str) -> None:
    """Writes the file that an option names, whole or not at all.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        files.write(path, text)
    except OSError as error:
        reason = why(error)
        raise MachineError(
            f"{option}: cannot write {path} ({reason}); free space or name another file"
        ) from None


def read(path: Path) -> dict[str, Any]:
    """Reads and validates a record.

    Raises:
        UserError: no such file, cut short, no result file, of another schema version, or changed.
    """
    try:
        record = files.parse_json(path.read_bytes())
    except OSError as error:
        reason = why(error)
        raise UserError(f"{path}: cannot be read ({reason}); name a result file") from None
    except ValueError as error:
        hint = "cut short? measure again"
        raise UserError(f"{path}: is no JSON ({str(error)[:80]}); {hint}") from None
    found = record.get("schema") if isinstance(record, dict) else None
    if found != SCHEMA:
        remedy = "read it with the fastppo that wrote it" if found else "name a result file"
        raise UserError(f"{path}: schema is {found!r} and not {SCHEMA!r}; {remedy}")
    wrong = problem(record)
    if wrong is not None:
        raise UserError(f"{path}: breaks {SCHEMA}: {wrong}; measure again")
    if "digest" in record and record["digest"] != digest(record):
        raise UserError(
            f"{path}: digest: the content was changed since it was written; measure again, or take "
            "the line out to vouch for it yourself"
        )
    return dict(record)


def problem(record: Any) -> str | None:
    """What breaks the schema, in one line with the place; None for a valid record."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(record))
    if error is None:
        return None
    return f"{error.json_path}: {' '.join(error.message.split())[:160]}"


def schema() -> dict[str, Any]:
    """The JSON Schema of result files."""
    text = resources.files("fastppo.bench.results").joinpath("result.schema.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded
