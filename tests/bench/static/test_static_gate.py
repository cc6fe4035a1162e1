"""`fastppo static` from end to end, on small trees of numba kernels, and how it takes mistakes."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fastppo import cli
from fastppo.bench.report.command import html, junit, markdown
from fastppo.bench.results import result
from fastppo.bench.static import build as static_build
from fastppo.bench.static import command as static
from fastppo.bench.static import gate as static_gate
from fastppo.bench.static import numba_asm
from fastppo.errors import MachineError

KERNELS = """
import numpy as np
from numba import njit


@njit("void(float32[::1], float32[::1])", fastmath={"contract"})
def scale_kernel(x, y):
    carry = np.float32(0.0)
    for i in range(x.shape[0]):
        y[i] = x[i] * x[i] + np.float32(1.0)


@njit
def lazy(x):
    return x
"""
# each row waits for the one before it
SERIAL = KERNELS.replace("y[i] = x[i] * x[i]", "carry = carry * x[i]\n        y[i] = carry")
LONGER = KERNELS.replace(
    "+ np.float32(1.0)", "+ (x[i] + np.float32(2.0)) * (x[i] + np.float32(3.0)) * x[i]"
)
GONE = "OTHER = 1\n"
SECOND = """

@njit("void(float32[::1])")
def second_kernel(x):
    x[0] = x[0] + x[1]
"""


def plant(tree: Path, source: str) -> Path:
    """A tree whose only kernels are those of `source`."""
    package = tree / "fastppo" / "kernels"
    package.mkdir(parents=True, exist_ok=True)
    for path in (package.parent / "__init__.py", package / "__init__.py", package / "aot.py"):
        path.touch()
    (package / "numba_probe.py").write_text(source)
    return tree


@pytest.fixture(autouse=True)
def _keep_the_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(static_gate, "EXPECTED", tmp_path / "expected")
    tree = plant(tmp_path.resolve() / "tree", KERNELS)
    monkeypatch.setattr(static, "TREE", tree)
    return tree


def run(*arguments: str) -> int:
    return cli.main(["static", "--compiler", "numba", "--jobs", "1", *arguments])


def test_check_passes_what_update_wrote_and_fails_what_is_worse(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--update") == 0
    (written,) = static_gate.EXPECTED.iterdir()
    assert written.name.startswith("static-numba-0.")
    assert "llvmlite" in written.name

    assert run("--check") == 0
    assert "1 compiled: 1 same" in capsys.readouterr().out

    plant(tree, SERIAL)
    assert run("--check") == 1
    out = capsys.readouterr().out
    assert "FAIL probe.scale_kernel, x86-64-v3: packed share of the float arithmetic 0.0%" in out
    assert "if this is meant: fastppo static --update" in out

    plant(tree, GONE)
    assert run("--check") == 1
    assert "FAIL probe.scale_kernel, x86-64-v3: is no longer compiled" in capsys.readouterr().out
    assert run("--check", "--kernel", "scale") == 2


def test_a_kernel_without_an_expectation_is_no_pass(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--update") == 0
    plant(tree, KERNELS + SECOND)

    assert run("--check") == 3
    assert "nothing is expected of 1 new kernels" in capsys.readouterr().err


def test_a_kernel_that_only_the_base_has_is_no_pass(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a renaming, which leaves nothing to compare."""
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm good"):
        subprocess.run(["git", *command.split()], cwd=tree, check=True)
    plant(tree, KERNELS.replace("scale_kernel", "renamed_kernel"))

    assert run("--base", "HEAD") == 3
    told = capsys.readouterr()
    assert "1 compiled: 1 new, 1 gone" in told.out
    assert "1 kernels of HEAD are gone, so nothing is compared with them" in told.err

    plant(tree, KERNELS + SECOND)
    assert run("--base", "HEAD") == 0


def test_no_kernel_at_all_is_no_pass(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tree, GONE)

    assert run() == 3
    assert "no kernel was found" in capsys.readouterr().err


def test_an_unknown_version_is_never_a_pass(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--check") == 3

    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("fastppo: error: static-numba-")
    assert "nothing is expected of this version" in err[-1]
    assert "`fastppo static --update`" in err[-1]


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", '{"schema": "fastppo.static/0"}'])
def test_an_expectation_that_cannot_be_read_is_no_pass(text: str, tmp_path: Path) -> None:
    path = tmp_path / "static-numba-1.json"
    path.write_text(text)

    with pytest.raises(MachineError, match=r"^static-numba-1\.json: .* run `fastppo static"):
        static_gate.read_expectation(path, "numba", lambda key: True)


def test_base_compares_with_a_commit(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm good"):
        subprocess.run(["git", *command.split()], cwd=tree, check=True)
    record = tmp_path / "record.json"

    assert run("--base", "HEAD") == 0
    assert "1 compiled: 1 same" in capsys.readouterr().out

    plant(tree, LONGER)
    reports = [tmp_path / "page.html", tmp_path / "comment.md", tmp_path / "junit.xml"]
    named = [word for path in reports for word in (f"--{path.suffix[1:]}", str(path))]
    named[-2] = "--junit"
    assert run("--base", "HEAD", "--json", str(record), *named) == 1
    assert "tolerance 5.0%" in capsys.readouterr().out
    assert all("FAIL" in path.read_text() for path in reports[:2])
    assert ElementTree.parse(reports[2]).find(".//failure") is not None
    (entry,) = result.read(record)["results"]
    row = entry["static"]
    assert row["verdict"] == "FAIL"
    assert row["now"]["instructions"] > row["before"]["instructions"]
    assert entry["launches"][0]["samples"] == [row["now"]["instructions"]]
    failed = ElementTree.fromstring(junit([result.read(record)])).findall(".//failure")
    assert [one.get("type") for one in failed] == ["Worse"]

    assert run("--base", "no-such-branch") == 2
    assert "--base: 'no-such-branch' is not a revision" in capsys.readouterr().err


def test_what_is_printed_is_what_report_prints_of_the_file(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], reported: Callable[[Path], str]
) -> None:
    record = tmp_path / "record.json"
    assert run("--update", "--json", str(record)) == 0

    printed = capsys.readouterr().out
    assert printed.startswith(reported(record))
    assert printed.splitlines()[-2] == "1 compiled"
    assert "compared with" not in printed
    assert result.read(record)["compilers"]["numba"]["against"] is None
    for make in (html, markdown):
        assert "probe.scale_kernel" in make([result.read(record)])


def test_a_tree_that_is_no_repository_has_no_base(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--base", "HEAD") == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "is not a git repository; run from a clone" in line


def test_a_kernel_that_does_not_compile_could_not_be_measured(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tree, KERNELS.replace("np.float32(1.0)", "undefined_name"))

    assert run() == 3
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("fastppo: error: worker numba died (exit code 1): ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tolerance", "-1"], "--tolerance: -1.0 must be"),
        (["--jobs", "0"], "--jobs: 0 must be 1 or above"),
        (["--arch", "75"], "--arch: '75' is not one of"),
        (["--update", "--kernel", "gae"], "leave out --arch and --kernel"),
        (["--check", "--base", "HEAD"], "--check: cannot go with --base"),
    ],
)
def test_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, *words, code=2)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """The message of a command that must fail before anything is compiled."""
    assert cli.main(["static", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_mistakes_are_told_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = str(tmp_path / "no" / "such.json")
    assert "--json" in refused(capsys, "--compiler", "numba", "--json", record, code=2)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "unset it" in refused(capsys, code=2)
    monkeypatch.delenv("TRITON_INTERPRET")

    monkeypatch.setattr(static_build, "find_spec", lambda name: None)
    told = refused(capsys, "--arch", "90", code=3)
    assert "triton is not installed: pip install triton (Linux on x86-64 only)" in told


def test_a_loop_that_became_packed_may_grow() -> None:
    """The counts of GAE's loop before and after it was vectorised."""
    counts: dict[str, Any] = {"calls": 0, "stack_stores": 0, "opcode_hash": ""}
    serial = numba_asm.AsmStats(instructions=80, packed=0, scalar=12, wide=0, **counts)
    packed = numba_asm.AsmStats(instructions=197, packed=4, scalar=4, wide=4, **counts)
    longer = numba_asm.AsmStats(instructions=197, packed=0, scalar=12, wide=0, **counts)

    assert packed.problems(serial, 0.05) == []
    assert longer.problems(serial, 0.05) == [
        "197 instructions, 80 before (+146.2%, tolerance 5.0%)"
    ]
    assert "packed share" in serial.problems(packed, 0.05)[0]


def test_the_assembly_of_wrappers_is_not_counted() -> None:
    stats = numba_asm.analyse(
        "_ZN5probe6kernel:\n"
        "\t.cfi_startproc\n"
        "\tvmovups\t(%rdi), %ymm0\n"
        "\tvfmadd213ps\t(%rsi), %ymm1, %ymm0\n"
        "\tvaddps\t%xmm1, %xmm0, %xmm0\n"
        ".LBB0_1:\n"
        "\tvmulss\t%xmm1, %xmm0, %xmm0\n"
        "\tvucomiss\t%xmm1, %xmm0\n"
        "\tvmovaps\t%ymm0, 32(%rsp)\n"
        "\tcallq\t*%rax\n"
        "\tvcvtss2sd\t%xmm0, %xmm0, %xmm0\n"
        "\tretq\n"
        "_ZN7cpython5probe6kernel:\n"
        "\tvaddss\t%xmm1, %xmm0, %xmm0\n"
        "NRT_incref:\n"
        "\tlock\t\tincq\t(%rdi)\n"
    )

    assert (stats.instructions, stats.calls, stats.stack_stores) == (9, 1, 1)
    assert (stats.packed, stats.scalar, stats.wide) == (2, 2, 1)
    assert (stats.packed_share, stats.wide_share) == (0.5, 0.5)
