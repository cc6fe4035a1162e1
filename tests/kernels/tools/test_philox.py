"""The generator of every backend, bit for bit, against the vectors published with Random123."""

import os

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastppo.kernels.tools import philox
from fastppo.kernels.tools.triton_philox import _philox, unit, words

ONES = 2**32 - 1
# kat_vectors, philox4x32 with 10 rounds: counter, key, words
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@triton.jit
def units_kernel(env_ptr, block_ptr, step_ptr, units_ptr, key_low, key_high):  # type: ignore[no-untyped-def]
    env = tl.load(env_ptr + tl.arange(0, 1))[:, None]
    block = tl.load(block_ptr + tl.arange(0, 1))[None, :]
    zero = key_low * 0
    w0, w1, w2, w3 = words(env, block, step_ptr, zero, zero, key_low, key_high)
    at = tl.arange(0, 1)[:, None] + tl.arange(0, 1)[None, :]
    tl.store(units_ptr + at, unit(w0))
    tl.store(units_ptr + 1 + at, unit(w1))
    tl.store(units_ptr + 2 + at, unit(w2))
    tl.store(units_ptr + 3 + at, unit(w3))


def by_triton(counter: tuple[int, ...], key: tuple[int, ...]) -> list[float]:
    env, low, high, block = (torch.tensor([word]) for word in counter)
    units = torch.zeros(4)
    halves = [word - 2**32 if word >= 2**31 else word for word in key]
    units_kernel[(1,)](env, block, (high << 32 | low)[0], units, *halves)
    return units.tolist()


def by_numba(counter: tuple[int, ...], key: tuple[int, ...]) -> list[float]:
    from fastppo.kernels.tools.numba_philox import ROWS, uniforms

    env, low, high, block = counter
    units = np.zeros((4, ROWS), np.float32)
    step, key_bits = (np.uint64(b << 32 | a).view(np.int64) for a, b in ((low, high), key))
    uniforms(np.full(ROWS, env, np.uint32), step, key_bits, block, units)
    assert (units == units[:, :1]).all()
    return [float(x) for x in units[:, 0]]


def by_torch(counter: tuple[int, ...], key: tuple[int, ...]) -> list[float]:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    drawn = philox.philox4x32(c0, c1, c2, c3, key[1] << 32 | key[0])
    return philox.to_uniform(torch.cat(drawn)).tolist()


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_numbers_are_the_published_words(
    backend: str, counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    draw = {"triton": by_triton, "numba": by_numba, "torch": by_torch}[backend]

    assert draw(counter, key) == [((word >> 9) + 0.5) / 2**23 for word in expected]


@triton.jit
def rounds_kernel(words_ptr, key_low, key_high):  # type: ignore[no-untyped-def]
    at = words_ptr + tl.arange(0, 4)
    word = tl.load(at)
    w0, w1, w2, w3 = _philox(word, word, word, word, key_low, key_high)
    tl.store(at, w0 ^ w1 ^ w2 ^ w3)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="of the compiler")
def test_debugging_does_not_object_to_wrapping() -> None:
    """TRITON_DEBUG asserts that integers do not overflow; these do by design."""
    types = {"words_ptr": "*u32", "key_low": "u32", "key_high": "u32"}
    source = ASTSource(fn=rounds_kernel, signature=types, constexprs={}, attrs={})

    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", 90, 32),
        options={"debug": True, "sanitize_overflow": True},
    )

    assert "overflow" not in compiled.asm["ttir"]


def test_a_step_that_is_a_number_is_not_copied_to_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both make a tensor on the host; from there to a GPU the host would wait."""
    for name in ("as_tensor", "tensor"):
        monkeypatch.delattr(torch, name)

    drawn = philox.row_uniforms(philox.Counter(1, 5, 0), 2, 3, torch.device("cpu"))

    assert drawn.shape == (2, 3)
