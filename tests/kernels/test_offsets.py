"""No Triton kernel adds a 32-bit offset to a pointer where 2**31 elements are possible."""

import re
from typing import Any

import pytest
import triton

from fastppo.kernels import aot, backends
from fastppo.kernels.tools.triton_spec import KernelSpec

# Additions that may be narrow, by kernel: what they reach cannot hold 2**31 elements.
BOUNDED = {
    "vocab_kernel": "tensor",  # within a row, to which a scalar of 64 bits led
    "log_probs_kernel": "tensor",  # likewise, as the next two
    "gradient_kernel": "tensor",
    "frames_kernel": "tensor",
    "small_kernel": "grad_ptr",  # one program serves 16,384 parameters at most
    "norm_kernel": "partials",  # one number a program, as the next three
    "update_kernel": "partials",
    "partial_moments_kernel": "%at",
    "finish_moments_kernel": "%at|partials",
}

pytestmark = pytest.mark.skipif(
    backends.triton_is_interpreted(), reason="the compiler cannot run in a process that interprets"
)


def intermediate_code(spec: KernelSpec, monkeypatch: pytest.MonkeyPatch) -> str:
    """Triton's first intermediate representation of a kernel."""
    compiled: list[Any] = []

    def kept(*args: Any, **kwargs: Any) -> Any:
        compiled.append(triton.compile(*args, **kwargs))
        return compiled[-1]

    monkeypatch.setattr(aot, "triton_compile", kept)
    aot.compile_kernel(spec, 90)
    text: str = compiled[0].asm["ttir"]
    return text


def narrow_offsets(code: str) -> list[str]:
    """Pointer additions whose offset is a block of int32, or an int32 that is no constant."""
    additions = re.findall(r"tt\.addptr (%\S+), (%\S+) : (.*?)(?: loc\(.*)?$", code, re.M)
    assert additions
    return [
        f"{pointer} + {offset} : {types}"
        for pointer, offset, types in additions
        if re.search(r"xi32>$|, i32$", types.strip()) and not offset.startswith("%c")
    ]


@pytest.mark.parametrize("spec", aot.shipped_kernels(), ids=lambda spec: spec.name)
def test_offsets_are_64_bits_wide(spec: KernelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = narrow_offsets(intermediate_code(spec, monkeypatch))
    allowed = BOUNDED.get(spec.function.__name__)

    assert [n for n in narrow if allowed is None or not re.search(allowed, n)] == []


def test_a_narrow_offset_is_found() -> None:
    code = (
        '%4 = tt.addptr %3, %2 : tensor<8x!tt.ptr<f32>>, tensor<8xi32> loc("x")\n'
        "%5 = tt.addptr %arg0, %c1_i32 : !tt.ptr<f32>, i32 loc(#loc1)\n"
        "%6 = tt.addptr %arg0, %1 : !tt.ptr<f32>, i64\n"
    )

    assert narrow_offsets(code) == ["%3 + %2 : tensor<8x!tt.ptr<f32>>, tensor<8xi32>"]
