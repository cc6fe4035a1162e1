"""`fastppo bench tokens`: what it leaves where nothing is installed, and where a library fails."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.peers import registry
from fastppo.bench.report.data import run_of
from fastppo.bench.report.notes import sentences
from fastppo.bench.report.tables import tables
from fastppo.bench.results import result
from fastppo.cli import main


@pytest.fixture(autouse=True)
def no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of peers that holds none."""
    folder = tmp_path / "peers"
    folder.mkdir()
    monkeypatch.setenv("FASTPPO_PEERS", str(folder))
    return folder


def put(folder: Path, name: str, script: str) -> None:
    """A peer whose python is a shell script."""
    python = folder / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    (folder / name / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    stamp = {"requirements": registry.PEERS[name].pins, "version": "9", "packages": {}}
    (folder / name / registry.STAMP).write_text(json.dumps(stamp))


def record(path: Path) -> dict[str, Any]:
    return dict(result.read(path))


def test_ours_alone_is_asked_timed_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    words = ["--rounds", "2", "--json", str(out), "--html", str(page)]

    assert main(["bench", "tokens", "fastppo", *words]) == 0

    found = record(out)
    assert [entry["id"] for entry in found["results"]] == [
        "tokens/answers", "tokens/loss", "tokens/linear",
    ]  # fmt: skip
    assert found["failures"] == []
    answers = found["results"][0]["tokens"]["answers"]
    assert answers["a hole in GAE"]["text"] == "cut out"
    for entry in found["results"][1:]:
        assert len(entry["launches"][0]["samples"]) == len(entry["tokens"]["eager_s"]) == 2
        assert 0 < entry["tokens"]["peak_bytes"] < entry["tokens"]["eager_peak_bytes"]
    shown = capsys.readouterr().out
    for text in ("a hole in GAE", "cut out", "times eager", "loss of hidden states"):
        assert text in shown
        assert text in page.read_text()


def test_what_is_not_installed_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastppo.bench.tokens.command.OWN", ("fastppo",))
    out = tmp_path / "out.json"

    assert main(["bench", "tokens", "--rounds", "0", "--json", str(out)]) == 0

    reasons = {one["impl"]: one["reason"] for one in record(out)["failures"]}
    assert set(reasons) == {"trl", "verl", "openrlhf", "liger", "nemo_rl"}
    assert reasons["trl"] == "not installed: `fastppo bench peers install trl`"
    assert "empty placeholder" in reasons["nemo_rl"]
    assert "not installed" in capsys.readouterr().out


ANSWER = {
    "version": "9",
    "called": "a",
    "answers": {"a hole in GAE": {"text": "<b>\x1b[31mcut</b>", "value": None}},
    "measured": {},
}


UNEVEN = {
    "measured": {
        "loss": {
            "seconds": {"library": [0.1], "eager": [0.1, 0.2]},
            "peak_bytes": {"library": 1, "eager": 1},
        }
    }
}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no torch here >&2; exit 1", "ended with exit code 1 and no answer: no torch here"),
        ("echo '{\"version\": 1}'", "ended with exit code 0 and no answer"),
        ("echo nonsense", "ended with exit code 0 and no answer"),
        (f"echo '{json.dumps(ANSWER | UNEVEN)}'", "ended with exit code 0 and no answer"),
        ("kill -9 $$", "and no answer: said nothing"),
    ],
)
def test_a_library_that_fails_is_reported_and_the_others_are_not_lost(
    script: str, reason: str, no_peers: Path, tmp_path: Path
) -> None:
    put(no_peers, "trl", script)
    put(no_peers, "verl", f"echo '{json.dumps(ANSWER)}'")
    out = tmp_path / "out.json"

    assert main(["bench", "tokens", "trl", "verl", "--json", str(out)]) == 3

    found = record(out)
    assert [entry["impl"] for entry in found["results"]] == ["verl"]
    [failure] = found["failures"]
    assert failure["impl"] == "trl"
    assert reason in failure["reason"]


def test_a_librarys_text_steers_no_terminal_and_no_page(no_peers: Path, tmp_path: Path) -> None:
    put(no_peers, "verl", f"cat <<'END'\n{json.dumps(ANSWER)}\nEND")
    out, page = tmp_path / "out.json", tmp_path / "page.html"

    assert main(["bench", "tokens", "verl", "--json", str(out), "--html", str(page)]) == 0

    assert "<b>" not in page.read_text()
    [table] = tables(run_of(record(out)))
    assert all("\x1b" not in cell for row in table.rows for cell in row)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ray"], "NAME: 'ray' is unknown; use fastppo, chunked, compile, trl, verl"),
        (["trl"], "peer: 'trl' is not installed; run `fastppo bench peers install trl`"),
        (["nemo_rl"], "peer: 'nemo_rl' cannot be installed: the package index"),
        (["--rounds", "-1"], "--rounds: -1 must not be negative"),
        (["--threads", "0"], "--threads: 0 must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "tokens", *words]) == 2

    assert capsys.readouterr().err.startswith(f"fastppo: error: {message}")


def test_who_gives_which_answer() -> None:
    def entry(impl: str, **answers: str) -> dict[str, Any]:
        told = {name: {"text": text, "value": None} for name, text in answers.items()}
        return {
            "id": "tokens/answers", "impl": impl, "unit": "questions", "better": "higher",
            "clock": "wall", "launches": [{"order": 0, "samples": [1.0]}],
            "tokens": {"version": "1", "called": "", "answers": told},
        }  # fmt: skip

    made = result.new("tokens", [entry("a", q="x", r="y"), entry("b", q="z"), entry("c", q="x")])
    [table] = tables(run_of(made))

    said = sentences([run_of(made)])
    assert said == [
        "3 libraries answered 2 questions on tokens; on 1 of them those that have a function for "
        "it agree."
    ]
    assert table.rows[:7] == [
        ("q",), ("  x", "a, c"), ("  z", "b"),
        ("r",), ("  y", "a"), ("  it has no function for that", "b, c"), ("versions",),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trl", "verl", "openrlhf", "liger"])
def test_a_peer_that_is_installed_answers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTPPO_PEERS", os.environ.get("TOKEN_PEERS", ""))
    if not registry.is_current(name):
        pytest.skip(f"{name} is not installed; set TOKEN_PEERS to the folder of the peers")
    out = tmp_path / "out.json"

    assert main(["bench", "tokens", name, "--rounds", "1", "--json", str(out)]) == 0

    found = record(out)["results"]
    assert not any("raises" in one["text"] for one in found[0]["tokens"]["answers"].values())
    assert len(found) == 2
