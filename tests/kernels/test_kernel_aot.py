"""The shipped Triton kernels compile, without a GPU. Not collected where Triton interprets."""

import pytest

from fastppo.kernels import aot, backends

SPECS = aot.shipped_kernels()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=() if arch == 90 else pytest.mark.slow, id=f"sm_{arch}")
        for arch in aot.ARCHITECTURES
    ],
)
def test_compiles_without_spills(spec: aot.KernelSpec, arch: int) -> None:
    assert not backends.triton_is_interpreted()

    info = aot.compile_kernel(spec, arch)

    assert info.cubin.startswith(b"\x7fELF")
    assert info.spill_bytes == 0
    assert 0 < info.registers <= 128


def test_every_kernel_is_in_the_list() -> None:
    from fastppo.kernels import triton_categorical, triton_gae, triton_gaussian, triton_rows

    modules = (triton_categorical, triton_gae, triton_gaussian, triton_rows)
    kernels = {v for m in modules for n, v in vars(m).items() if n.endswith("_kernel")}

    assert kernels == {spec.function for spec in SPECS}
