"""What GitHub Actions shows of a gate: annotations of the run, and the page of the job."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastppo.bench.report import markdown
from fastppo.bench.report.data import run_of
from fastppo.bench.report.tables_gate import FAILED, findings
from fastppo.errors import MachineError, why
from fastppo.text import print_err

SUMMARY = "GITHUB_STEP_SUMMARY"


def announce(record: Mapping[str, Any]) -> None:
    """Prints a workflow command per finding, and appends the report to the job's summary.

    Raises:
        MachineError: the file of the summary cannot be written.
    """
    run = run_of(dict(record))
    if record["void"]:
        print(_command("warning", f"VOID: {record['void']}"), flush=True)
    for sentence in findings(run.entries):
        print(_command("error" if sentence.startswith(FAILED) else "warning", sentence), flush=True)
    for failure in record["failures"]:
        said = f"{failure['id']}, {failure['impl']}: {failure['reason']}"
        print(_command("warning", said), flush=True)
    path = os.environ.get(SUMMARY)
    if not path:
        print_err(f"--github: {SUMMARY} is not set: no summary outside GitHub Actions")
        return
    try:
        with Path(path).open("a") as file:
            file.write(markdown.markdown([run]))
    except OSError as error:
        raise MachineError(f"{SUMMARY}: {path}: {why(error)}") from None


def _command(kind: str, text: str) -> str:
    """A line that the runner reads; a line end or percent sign in it would end or change it."""
    for sign, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(sign, code)
    return f"::{kind} title=performance gate::{text}"
