"""Result files: their digest, and what is done with files that have none."""

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.results import result
from fastppo.errors import UserError

FAILURE = {"id": "env/x", "impl": "x", "reason": "0.1 \u00e9"}
PAGE = Path(__file__).parents[3] / "docs" / "results-format.md"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "r.json"
    result.write(path, result.new("env", [], failures=[FAILURE]))
    return path


def test_a_file_that_was_written_is_read(written: Path) -> None:
    record = result.read(written)

    assert record["digest"] == result.digest(record)


def test_any_changed_value_is_refused(written: Path) -> None:
    record = json.loads(written.read_text())
    changes: list[dict[str, Any]] = [
        {"created": record["created"].replace("20", "21", 1)},
        {"command": [*record["command"], "--more"]},
        {"failures": []},
        {"note": "a key that nobody knows"},
        {"digest": "0" * 64},
    ]
    for change in changes:
        written.write_text(json.dumps(record | change))
        with pytest.raises(UserError, match=r"r\.json: digest: the content was changed"):
            result.read(written)


def test_another_layout_of_the_same_content_is_read(written: Path) -> None:
    record = json.loads(written.read_text())
    written.write_text(json.dumps(dict(reversed(record.items())), indent=4, ensure_ascii=False))

    assert result.read(written) == record


def test_a_file_from_before_there_were_digests_is_read(written: Path) -> None:
    record = json.loads(written.read_text())
    del record["digest"]
    written.write_text(json.dumps(record))

    assert result.read(written) == record


def test_the_page_checks_a_file_by_hand(written: Path) -> None:
    text = PAGE.read_text()
    code = textwrap.dedent(text[text.index("    python3 -c ") :])
    program = code.replace("result.json", str(written))

    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"


def test_the_page_names_every_field_and_kind() -> None:
    text = PAGE.read_text()

    assert all(f"`{name}`" in text for name in result.schema()["properties"])
    assert all(f"`{kind}`" in text for kind in result.KINDS)
