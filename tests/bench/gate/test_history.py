"""`fastppo gate record` and `gate history`: changes are found where they are, and only there."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastppo import cli
from fastppo.bench.gate import change_points
from fastppo.bench.results import result

Nights = Callable[[Sequence[float]], list[Path]]


@pytest.fixture
def nights(train_record: Callable[..., dict[str, Any]], tmp_path: Path) -> Nights:
    """A result file per night, ours so many times as fast; the machine drifts by a quarter."""

    def make(speeds: Sequence[float]) -> list[Path]:
        paths = []
        for night, speed in enumerate(speeds):
            drift = 1.0 + 0.25 * night / len(speeds)
            record = train_record(
                {"fastppo": speed * drift, "reference": drift},
                seed=night,
                names=("fastppo", "reference"),
            )
            record |= {
                "run_id": f"night-{night:04}",
                "created": f"2026-10-{night + 1:02}T03:00:00+00:00",
                "code": {"sha": sha_of(night), "dirty": False},
            }
            paths.append(tmp_path / f"night{night}.json")
            result.write(paths[-1], record)
        return paths

    return make


def sha_of(night: int) -> str:
    return hashlib.sha1(str(night).encode()).hexdigest()


def run(*words: object) -> int:
    return cli.main(["gate", *map(str, words)])


def test_a_change_is_found_in_its_night_whatever_the_machine_does(
    nights: Nights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target, page = tmp_path / "history", tmp_path / "out.json", tmp_path / "out.html"
    assert run("record", *nights([1.0] * 12 + [0.8] * 12), "--history", folder) == 0
    outputs = ("--json", target, "--html", page, "--md", tmp_path / "out.md")

    assert run("history", folder, *outputs) == 0
    assert run("history", folder, "--strict") == 1

    for entry in json.loads(target.read_text())["results"]:
        (change,) = entry["history"]["changes"]
        assert change["index"] == 12
        assert change["after"] / change["before"] == pytest.approx(0.8, rel=0.03)
        assert entry["unit"] == "x reference"
    assert "-2" in capsys.readouterr().out
    assert page.read_text().count("<svg") == 2
    assert sha_of(12)[:9] in (tmp_path / "out.md").read_text().replace("<!-- -->", "")


def test_steady_nights_show_no_change(nights: Nights, tmp_path: Path) -> None:
    folder, target = tmp_path / "history", tmp_path / "out.json"
    run("record", *nights([1.0] * 24), "--history", folder)
    assert run("history", folder, "--strict", "--json", target) == 0
    assert all(not e["history"]["changes"] for e in json.loads(target.read_text())["results"])


def test_what_became_faster_is_a_change_and_no_fault(nights: Nights, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    run("record", *nights([1.0] * 10 + [1.4] * 10), "--history", folder)
    assert run("history", folder, "--strict") == 0


def test_a_result_is_recorded_once(
    nights: Nights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = nights([1.0])
    for _ in range(2):
        assert run("record", path, "--history", tmp_path / "history") == 0
    (file,) = (tmp_path / "history").iterdir()
    assert len(file.read_text().splitlines()) == 1
    assert "is in" in capsys.readouterr().out


def test_a_damaged_line_is_named_and_left_out(
    nights: Nights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "history"
    run("record", *nights([1.0] * 3), "--history", folder)
    (file,) = folder.iterdir()
    with file.open("a") as lines:
        lines.write('{"run_id": "half\n[]\n')
    capsys.readouterr()

    assert run("history", folder) == 0
    said = capsys.readouterr()
    assert "2 damaged lines left out" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("history", "nothing"), "nothing: has no history; fastppo gate record makes one"),
        (("history", ".", "--alpha", "1"), "--alpha: 1.0 must lie between 0 and 0.5"),
        (("record", "nothing.json", "--history", "h"), "nothing.json"),
        (("record", "--history", "h"), "FILE"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_what_holds_nothing_of_ours_is_refused(
    train_record: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "theirs.json"
    result.write(path, train_record(names=("reference", "sb3")))
    assert run("record", path, "--history", tmp_path / "history") == 2
    assert "has no samples of fastppo or head" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(3))
def test_false_changes_are_as_rare_as_alpha_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [bool(change_points.changes(rng.normal(size=20), alpha=0.05)) for _ in range(60)]
    assert sum(found) <= 9  # of 60 at 0.05: 3 expected, 10 or more once in a thousand


def test_two_steps_are_two_changes() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=30) * 0.02 + np.repeat([0.0, 0.2, 0.1], 10)
    found = change_points.changes(values)
    assert [one.index for one in found] == [10, 20]
    assert [round(one.after - one.before, 1) for one in found] == [0.2, -0.1]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 5, [1.0] * 40])
def test_too_few_or_equal_values_show_nothing(values: list[float]) -> None:
    assert change_points.changes(values) == []


def test_the_export_for_otava(nights: Nights, tmp_path: Path) -> None:
    folder, out = tmp_path / "history", tmp_path / "otava"
    run("record", *nights([1.0] * 10 + [0.8] * 10), "--history", folder)
    assert run("history", folder, "--otava", out) == 0

    with (out / "series.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert set(rows[0]) == {"time", "commit", "train/Pong-v5/8x128", "train/CartPole-v1/8x128"}
    test = json.loads((out / "otava.yaml").read_text())["tests"]["fastppo"]
    assert {one["direction"] for one in test["metrics"].values()} == {1}
    otava = shutil.which("otava")
    if otava is not None:
        done = subprocess.run(
            [otava, "analyze", "fastppo"],
            env=os.environ | {"OTAVA_CONFIG": str(out / "otava.yaml")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "2026-10-11" in done.stdout
