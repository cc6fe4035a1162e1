"""Philox-4x32-10 and the noise made of it, for Triton kernels."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import triton
import triton.language as tl


@triton.jit
def _philox(c0, c1, c2, c3, k0, k1):
    """Philox-4x32-10 on uint32 counters; the words of philox.philox4x32.

    Products and sums wrap by design, which is declared: else TRITON_DEBUG asserts that they do not.
    """
    for _ in tl.static_range(10):
        high_a = tl.umulhi(c0, 0xD2511F53)
        high_b = tl.umulhi(c2, 0xCD9E8D57)
        low_a = tl.mul(c0, 0xD2511F53, sanitize_overflow=False)
        low_b = tl.mul(c2, 0xCD9E8D57, sanitize_overflow=False)
        c0 = high_b ^ c1 ^ k0
        c1 = low_b
        c2 = high_a ^ c3 ^ k1
        c3 = low_a
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def words(env, block, step_ptr, step_low, step_high, key_low, key_high):
    """Four words of each environment and block; all arguments but the pointer are int32 or int64.

    A 64-bit number comes as two int32 halves: their type does not depend on their value.
    """
    low = step_low.to(tl.uint32, bitcast=True)
    high = step_high.to(tl.uint32, bitcast=True)
    if step_ptr is not None:
        step = tl.load(step_ptr)
        low = (step & 0xFFFFFFFF).to(tl.uint32)
        high = ((step >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = (env * 0 + block * 0).to(tl.uint32)  # in the shape of the result
    return _philox(
        zero + (env & 0xFFFFFFFF).to(tl.uint32),
        zero + low,
        zero + high,
        zero + block.to(tl.uint32),
        key_low.to(tl.uint32, bitcast=True),
        key_high.to(tl.uint32, bitcast=True),
    )


@triton.jit
def unit(word):
    return ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2**-23


@triton.jit
def uniform(index, env, step_ptr, step_low, step_high, key_low, key_high):
    """Number `index` [1, N] of each environment [B, 1]."""
    w0, w1, w2, w3 = words(env, index >> 2, step_ptr, step_low, step_high, key_low, key_high)
    word = tl.where((index & 2) == 0, w0, w2)
    odd = tl.where((index & 2) == 0, w1, w3)
    return unit(tl.where((index & 1) == 0, word, odd))


@triton.jit
def normal(u, v, first_half):
    """Box and Muller's cosine in the first half of the components, else the sine.

    Written out: a library sine keeps a stack for angles that do not occur here.
    """
    radius = tl.sqrt(-2.0 * tl.log(u))
    angle = 6.283185307179586 * v
    quarter = (angle * 0.6366197723675814 + 0.5).to(tl.int32)  # 0 .. 4
    k = quarter.to(tl.float32)
    # pi / 2 in three parts, the first two short enough for exact multiples (Cephes sinf)
    x = angle - k * 1.5703125
    x = x - k * 4.837512969970703125e-4
    x = x - k * 7.54978995489188216e-8
    z = x * x
    # Cephes sinf and cosf on [-pi / 4, pi / 4]
    s = -1.9515295891e-4 * z + 8.3321608736e-3
    s = s * z - 1.6666654611e-1
    s = s * z * x + x
    c = 2.443315711809948e-5 * z - 1.388731625493765e-3
    c = c * z + 4.166664568298827e-2
    c = c * z * z - 0.5 * z + 1.0
    # cos(x) = sin(x + pi / 2)
    quarter += tl.where(first_half, 1, 0)
    value = tl.where((quarter & 1) == 0, s, c)
    return radius * tl.where((quarter & 2) == 0, value, -value)
