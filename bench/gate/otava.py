"""What Apache Otava reads: one CSV of all series and the configuration that names its columns.

Tried with apache-otava 0.7 in an environment of its own, where it belongs: it pins numpy and brings
the clients of several services.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastppo.bench.results import result

CONFIG, DATA, TEST = "otava.yaml", "series.csv", "fastppo"


def export(folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes both files; a time at which a series has no value leaves its cell empty.

    Raises:
        UserError, MachineError: they cannot be written.
    """
    names = [_name(entry) for entry in entries]
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for entry, name in zip(entries, names, strict=True):
        detail = entry["history"]
        for i, launch in enumerate(entry["launches"]):
            key = (detail["times"][i], detail["revisions"][i])
            rows.setdefault(key, {})[name] = launch["samples"][0]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["time", "commit", *names])
    for (time, revision), values in sorted(rows.items()):
        table.writerow([time, revision, *(values.get(name, "") for name in names)])
    result.write_text(folder / DATA, text.getvalue(), "--otava")
    metrics = {
        name: {"column": name, "direction": 1 if entry["better"] == "higher" else -1}
        for entry, name in zip(entries, names, strict=True)
    }
    test = {
        "type": "csv",
        "file": str((folder / DATA).absolute()),
        "time_column": "time",
        "attributes": ["commit"],
        "metrics": metrics,
    }
    # every JSON is YAML
    config = json.dumps({"tests": {TEST: test}}, indent=2) + "\n"
    result.write_text(folder / CONFIG, config, "--otava")


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["id"]).removeprefix("history/")
