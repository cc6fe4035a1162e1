"""The shipped Triton kernels compile, without a GPU. Not collected where Triton interprets."""

from importlib import import_module
from pathlib import Path

import pytest

from fastppo.kernels import aot, backends
from fastppo.kernels.act import triton_gpu as triton_act
from fastppo.kernels.gather import triton_gpu as triton_gather
from fastppo.kernels.tools.triton_spec import KernelSpec

SPECS = aot.shipped_kernels()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=() if arch == 90 else pytest.mark.slow, id=f"sm_{arch}")
        for arch in aot.ARCHITECTURES
    ],
)
def test_compiles_without_spills(spec: KernelSpec, arch: int) -> None:
    assert not backends.triton_is_interpreted()

    info = aot.compile_kernel(spec, arch)

    assert info.cubin.startswith(b"\x7fELF")
    assert info.spill_bytes == 0
    assert 0 < info.registers <= 128


def test_every_kernel_is_in_the_list() -> None:
    folder = Path(aot.__file__).parent
    names = [path.with_suffix("").relative_to(folder).parts for path in folder.rglob("triton_*.py")]
    modules = [import_module(".".join(("fastppo.kernels", *parts))) for parts in names]
    kernels = {v for m in modules for n, v in vars(m).items() if n.endswith("_kernel")}

    assert kernels == {spec.function for spec in SPECS}


def test_rows_of_a_buffer_are_compiled_for_once() -> None:
    """With an odd number of environments the alignment of a row changes from step to step."""
    kernels = (
        triton_act.categorical_act_kernel,
        triton_act.gaussian_act_kernel,
        triton_gather.gather_kernel,
    )

    one_per_row = {"log_probs_ptr", "entropy_ptr"}
    assert [
        {p.name for p in kernel.params if p.do_not_specialize_on_alignment} for kernel in kernels
    ] == [{"actions_ptr", *one_per_row}, one_per_row, {"index_ptr"}]
