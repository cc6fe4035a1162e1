"""The static gate on Triton kernels: each way to worsen a small kernel turns it red."""

import importlib.util
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from triton import knobs

from fastppo import cli
from fastppo.bench.report.terminal import print_results
from fastppo.bench.static import command as static
from fastppo.bench.static import gate as static_gate
from fastppo.bench.static import sass
from fastppo.bench.static.build import Build
from fastppo.bench.static.sass import CubinStats
from fastppo.kernels import aot
from fastppo.kernels.tools.triton_spec import KernelSpec

PROBE = """
import triton
import triton.language as tl


@triton.jit
def probe_kernel(
    x_ptr, y_ptr, SHIFT: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row + SHIFT)
    for _ in tl.static_range(ROUNDS):
        x = x * x + 0.5
    # every x stays live until the sum is known
    tl.store(y_ptr + row, x - tl.sum(x))
"""
SHIP_THE_PROBE = """

def shipped_kernels() -> list[KernelSpec]:
    from .triton_probe import probe_kernel

    return [
        KernelSpec(
            name="probe",
            function=probe_kernel,
            types={"x_ptr": "*fp32", "y_ptr": "*fp32"},
            constants={"SHIFT": 0, "ROUNDS": 4, "BLOCK": 1024},
        )
    ]
"""
KERNELS = Path(aot.__file__).resolve().parent
SHAPE: dict[str, int] = {"SHIFT": 0, "ROUNDS": 4, "BLOCK": 1024}


def probe(folder: Path, *, num_warps: int = 4, **constants: int) -> KernelSpec:
    """The probe kernel, from a file in `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / "probe.py"
    path.write_text(PROBE)
    spec = importlib.util.spec_from_file_location("probe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return KernelSpec(
        name="probe",
        function=module.probe_kernel,
        types={"x_ptr": "*fp32", "y_ptr": "*fp32"},
        constants=SHAPE | constants,
        num_warps=num_warps,
    )


def counted(spec: KernelSpec) -> tuple[CubinStats, bytes]:
    info = aot.compile_kernel(spec, 90)
    stats = sass.analyse(
        arch=90,
        num_warps=spec.num_warps,
        registers=info.registers,
        spill_bytes=info.spill_bytes,
        shared_bytes=info.shared_bytes,
        disassembly=sass.disassemble(info.cubin, knobs.nvidia.nvdisasm.path),
    )
    return stats, info.cubin


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> CubinStats:
    return counted(probe(tmp_path_factory.mktemp("good")))[0]


def problems(folder: Path, good: CubinStats, num_warps: int = 4, **constants: int) -> list[str]:
    worse = counted(probe(folder, num_warps=num_warps, **constants))[0]
    (row,) = static_gate.compare(
        {("probe", "sm_90"): worse}, {("probe", "sm_90"): good}, tolerance=0.05
    )
    assert (row.verdict == "FAIL") == bool(row.problems)
    return row.problems


def test_the_probe_is_as_good_as_it_looks(good: CubinStats) -> None:
    assert good.spill_bytes == 0
    assert good.loads == {128: 2}
    assert good.stores == {128: 2}
    assert good.warps == 64
    assert good.shuffles > 0
    assert good.barriers > 0


def test_a_spill_is_red_whatever_was_before(tmp_path: Path, good: CubinStats) -> None:
    # 512 live values per thread, and 255 registers
    found = problems(tmp_path, good, num_warps=1, BLOCK=16384)

    assert any(p.startswith("spills ") for p in found), found
    assert any(" warps per SM, 64 before" in p for p in found), found


def test_split_loads_are_red(tmp_path: Path, good: CubinStats) -> None:
    # one element further no address is a multiple of 16 bytes
    found = problems(tmp_path, good, SHIFT=1)

    assert "narrower loads: 32x8, 128x2 before" in found
    assert not any("stores" in p for p in found)


def test_more_instructions_than_the_tolerance_are_red(tmp_path: Path, good: CubinStats) -> None:
    (found,) = problems(tmp_path, good, ROUNDS=8)

    assert "instructions" in found
    assert "tolerance 5.0%" in found


def test_fewer_warps_are_red(tmp_path: Path, good: CubinStats) -> None:
    found = problems(tmp_path, good, num_warps=1, BLOCK=4096)

    assert any(" warps per SM, 64 before (registers " in p for p in found), found
    assert not any(p.startswith("spills") for p in found)


def test_the_same_kernel_in_another_folder_is_the_same(
    tmp_path: Path, good: CubinStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an empty cache, or the second would be the first
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache a"))
    here, cubin = counted(probe(tmp_path / "a"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache b"))
    there, other_cubin = counted(probe(tmp_path / "b"))
    (row,) = static_gate.compare({("probe", "x"): there}, {("probe", "x"): here}, tolerance=0.0)

    assert cubin != other_cubin
    assert here == there == good
    assert row.verdict == "same"


def test_without_anything_to_compare_with_only_a_spill_fails(good: CubinStats) -> None:
    spilling = CubinStats(**{**_fields(good), "spill_bytes": 8})
    kernels = {("a", "sm_90"): good, ("b", "sm_90"): spilling}
    rows = static_gate.compare(kernels, None, tolerance=0.0)

    assert [row.verdict for row in rows] == ["", "FAIL"]
    assert rows[1].problems == ["spills 8 bytes per thread, 0 before"]


def test_kernels_of_one_side_only(good: CubinStats) -> None:
    now, before = {("new", "sm_90"): good}, {("old", "sm_90"): good}

    rows = static_gate.compare(now, before, tolerance=0.0)
    checked = static_gate.compare(now, before, tolerance=0.0, gone_fails=True)

    assert [row.verdict for row in rows] == ["new", "gone"]
    assert [row.verdict for row in checked] == ["new", "FAIL"]


def test_the_counts_survive_the_file(good: CubinStats) -> None:
    assert CubinStats.from_json(good.to_json()) == good


def test_base_compares_the_kernels_of_two_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped aot.py of a clone, laid out as here, with the probe as its only kernel."""
    tree = tmp_path.resolve() / "clone"
    shutil.copytree(KERNELS, tree / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "fastppo").mkdir()
    (tree / "fastppo" / "__init__.py").touch()
    (tree / "fastppo" / "kernels").symlink_to("../kernels")
    (tree / "kernels" / "triton_probe.py").write_text(PROBE)
    with (tree / "kernels" / "aot.py").open("a") as file:
        file.write(SHIP_THE_PROBE)
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm good"):
        subprocess.run(["git", *command.split()], cwd=tree, check=True)
    monkeypatch.setattr(static, "TREE", tree)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    worse = PROBE.replace("x_ptr + row", "x_ptr + 1 + row")
    (tree / "kernels" / "triton_probe.py").write_text(worse)

    assert cli.main(["static", "--base", "HEAD", "--arch", "90", "--jobs", "1"]) == 1

    out = capsys.readouterr().out
    assert "FAIL probe, sm_90: narrower loads: 32x8, 128x2 before" in out
    assert "1 compiled: 1 FAIL" in out


def _fields(stats: CubinStats) -> dict[str, Any]:
    return {name: getattr(stats, name) for name in CubinStats.__dataclass_fields__}


def test_the_disassembly_is_read_line_by_line() -> None:
    text = """
        .text.some_kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 EXIT ;
        /*0020*/              @!P1 LDG.E.U8 R3, desc[UR6][R24.64] ;
        /*0030*/                   LDG.E.128.CONSTANT R4, desc[UR6][R2.64] ;
        /*0040*/             @!UP0 LDGSTS.E.BYPASS.64 [R3], desc[UR6][R4.64] ;
        /*0050*/                   FFMA2 R4, R4.F32x2.HI_LO, R6.F32x2.HI_LO, R8.F32x2.HI_LO ;
        /*0060*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0070*/               @P2 SHFL.BFLY PT, R5, R4, 0x10, 0x1f ;
        /*0080*/                   STG.E desc[UR6][R2.64], R5 ;
.L_x_0:
        /*0090*/                   BRA `(.L_x_0);
        /*00a0*/                   NOP;
        /*00b0*/                   NOP;
    """
    stats = sass.analyse(
        arch=100, num_warps=4, registers=72, spill_bytes=0, shared_bytes=0, disassembly=text
    )

    assert stats.instructions == 10 + 1
    assert stats.loads == {128: 1, 64: 1, 8: 1}
    assert stats.stores == {32: 1}
    assert (stats.barriers, stats.shuffles) == (1, 1)


def test_warps_per_multiprocessor() -> None:
    """By hand: 72 registers x 32 lanes = 2304 of a scheduler's 16384: 7 warps, of four: 28."""
    assert sass.warps_by_registers(72, 4) == 28
    assert sass.warps_by_registers(72, 8) == 24
    assert sass.warps_by_registers(32, 4) == 64
    assert sass.warps_by_registers(33, 4) == 48
    # blocks are at most 32
    assert sass.warps_by_registers(16, 1) == 32
    # 100 KiB + 1 KiB reserved: once in 164 KiB, twice in 228 KiB
    assert sass.warps_by_shared(100 * 1024, 4, 80) == 4
    assert sass.warps_by_shared(100 * 1024, 4, 90) == 8
    assert sass.warps_by_shared(0, 4, 80) == 64
    assert set(sass.SHARED_PER_SM) == set(aot.ARCHITECTURES)


@pytest.mark.parametrize(
    ("now", "before", "lost"),
    [
        ({32: 64}, {128: 16}, True),
        ({128: 8, 32: 32}, {128: 16}, True),
        ({64: 32}, {128: 16}, True),
        ({8: 8}, {32: 2}, True),
        ({128: 16}, {128: 16}, False),
        # one more scalar, a load less, wider ones
        ({128: 16, 32: 1}, {128: 16}, False),
        ({128: 12}, {128: 16}, False),
        ({128: 16}, {32: 64}, False),
        ({}, {128: 16}, False),
    ],
)
def test_what_a_lost_width_is(now: dict[int, int], before: dict[int, int], lost: bool) -> None:
    assert sass.lost_width(now, before) is lost


def test_the_table_cuts_nothing(good: CubinStats, capsys: pytest.CaptureFixture[str]) -> None:
    long = CubinStats(
        **{**_fields(good), "loads": {w: 100 for w in (256, 128, 64, 32, 16, 8)}, "barriers": 1234}
    )
    rows = static_gate.compare(
        {("a kernel of a very long name indeed, masked", "sm_100"): long}, None, tolerance=0.0
    )

    build = Build({"triton": "3"})
    print_results([static.record_of({"triton": build}, {"triton": rows}, {})])

    out = capsys.readouterr().out
    assert "256x100 128x100 64x100 32x100 16x100 8x100" in out
    assert "33%" in out
    assert "1234" in out
    assert out.isascii()
