"""What lies around a command: variables and files of the user's that other programs read."""

import ast
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import fastppo
from fastppo import cli, machine, surroundings
from fastppo.bench.report import charts
from fastppo.bench.results import result
from fastppo.bench.static import command as static
from fastppo.bench.static import gate as static_gate
from fastppo.revision import revision
from fastppo.run import doctor

TREE = Path(fastppo.__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "junk", "PYTHONWARNINGS": "error", "GIT_DIR": "/nowhere"},
        {"PYTHONOPTIMIZE": "2", "LC_ALL": "C", "TERM": "[/red]", "COLUMNS": "junk"},
    ],
)
def test_a_report_is_the_same_whatever_the_variables_hold(
    variables: dict[str, str], train_record: Callable[..., Any], tmp_path: Path
) -> None:
    result.write(tmp_path / "a.json", train_record(names=("fastppo", "reference")))
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\naxes.grid: True\n")
    pages = []
    for extra in ({}, variables):
        command = [sys.executable, "-m", "fastppo", "report", "a.json", "--html", "a.html"]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | extra, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "html: a.html\n", "")
        pages.append((tmp_path / "a.html").read_bytes())
        (tmp_path / "matplotlibrc").unlink(missing_ok=True)

    assert pages[0] == pages[1]


def test_git_is_asked_about_our_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = revision()
    if ours["sha"] is None:
        pytest.skip("no clone")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    for name in ("MPLBACKEND", "GIT_OPTIONAL_LOCKS"):
        monkeypatch.setenv(name, "")  # restored afterwards

    surroundings.mend()

    assert revision() == ours


def test_a_warning_of_a_library_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    for name in ("MPLBACKEND", "GIT_OPTIONAL_LOCKS"):
        monkeypatch.setenv(name, "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surroundings.mend()
        with pytest.warns(DeprecationWarning, match="harmless"):
            warnings.warn("harmless", DeprecationWarning, stacklevel=1)


def test_charts_start_from_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "text.usetex", True)
    monkeypatch.setitem(mpl.rcParams, "axes.grid", True)

    with charts.style():
        assert not mpl.rcParams["text.usetex"]
        assert not mpl.rcParams["axes.grid"]


def test_no_assertion_decides_a_verdict() -> None:
    """One with a message is a check, which python -O leaves out; others only narrow a type."""
    for package in ("bench/gpu_check", "bench/gate", "bench/compare", "bench/results",
                    "bench/contract", "bench/launch"):  # fmt: skip
        for file in (TREE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                assert not (isinstance(node, ast.Assert) and node.msg), (file, node.lineno)


def test_expectations_on_a_read_only_mount_are_told_before_compiling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(static_gate, "EXPECTED", Path("/proc/expected"))
    monkeypatch.setattr(static, "_build", lambda *_: pytest.fail("compiled"))

    assert cli.main(["static", "--update", "--compiler", "numba"]) == 2
    assert "--update: cannot write /proc/expected" in capsys.readouterr().err


def test_a_settings_file_of_numba_is_recorded_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert machine.NUMBA_FILE not in machine.variables()

    (tmp_path / machine.NUMBA_FILE).write_text("disable_jit: 1\n")

    assert machine.variables()[machine.NUMBA_FILE] == "present"
    assert any(machine.NUMBA_FILE in line for line in doctor.warnings())
