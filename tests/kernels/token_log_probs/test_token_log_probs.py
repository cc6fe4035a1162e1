"""Log-probabilities of tokens on every backend against float64: values, gradients, edges."""

import math
import mmap
import os
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 15 if INTERPRETED else 50}
FLOAT32: dict[str, Any] = {"rtol": 3e-5, "atol": 1e-5}
BFLOAT16: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-6}


def batch(rows: int, width: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = (3.0 * torch.randn(rows, width, generator=g)).to(dtype)
    return logits, torch.randint(width, (rows,), generator=g)


def run(logits: Tensor, tokens: Tensor, backend: str, **options: Any) -> tuple[Tensor, ...]:
    """Log-probabilities, entropies, and the gradient of a weighted sum of both."""
    leaf = logits.detach().requires_grad_()
    log_probs, entropy = api.token_log_probs(
        leaf, tokens, with_entropy=True, backend=backend, **options
    )
    weights = torch.arange(log_probs.numel(), dtype=log_probs.dtype).view(log_probs.shape) - 1.5
    (log_probs * weights + 0.3 * entropy).sum().backward()
    assert leaf.grad is not None
    return log_probs.detach(), entropy.detach(), leaf.grad


@settings(**SETTINGS)
@given(
    rows=st.integers(1, 5),
    width=st.sampled_from([1, 2, 31, 129, 1025, 4100]),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
    holes=st.booleans(),
    index=st.sampled_from([torch.int32, torch.int64]),
)
def test_matches_float64_reference(
    backend: str,
    rows: int,
    width: int,
    seed: int,
    dtype: torch.dtype,
    temperature: float,
    holes: bool,
    index: torch.dtype,
) -> None:
    logits, tokens = batch(rows, width, seed, dtype)
    options: dict[str, Any] = {"temperature": temperature}
    if holes:
        valid = torch.arange(rows) % 2 == 0
        logits[~valid], tokens[~valid] = math.nan, -100
        options["valid"] = valid

    actual = run(logits, tokens.to(index), backend, **options)

    expected = run(logits.double(), tokens, "torch", **options)
    assert actual[0].dtype == torch.float32
    assert actual[2].dtype == dtype
    for a, e in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(a.double(), e, **FLOAT32)
    tolerance = FLOAT32 if dtype == torch.float32 else BFLOAT16
    torch.testing.assert_close(actual[2].double(), expected[2], **tolerance)


def test_by_hand(backend: str) -> None:
    """p = 1/5, 4/5; at temperature 1/2 the odds are squared: 1/17, 16/17."""
    logits, tokens = torch.tensor([[0.0, math.log(4.0)]]), torch.tensor([1])

    plain, entropy = api.token_log_probs(logits, tokens, with_entropy=True, backend=backend)
    cold = api.token_log_probs(logits, tokens, temperature=0.5, backend=backend)

    torch.testing.assert_close(plain, torch.tensor([math.log(4 / 5)]))
    torch.testing.assert_close(entropy, torch.tensor([-0.2 * math.log(0.2) - 0.8 * math.log(0.8)]))
    torch.testing.assert_close(cold, torch.tensor([math.log(16 / 17)]))


@pytest.mark.parametrize("width", [32_001, 151_936])
def test_from_bfloat16_within_1e_5(backend: str, width: int) -> None:
    """Where a softmax in bfloat16 is off by whole percents."""
    logits, tokens = batch(3, width, 0, torch.bfloat16)
    exact = logits.double().log_softmax(1).gather(1, tokens[:, None])[:, 0]
    rounded = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]

    ours = api.token_log_probs(logits, tokens, backend=backend)

    assert (ours.double() - exact).abs().max() < 1e-5
    assert (rounded.double() - exact).abs().max() > 1e-3


def test_any_leading_shape_and_strides(backend: str) -> None:
    logits, tokens = batch(6, 300, 1, torch.float32)
    cube = torch.stack([logits, -logits], 2)[..., 0].view(2, 3, 300)
    turned = cube.transpose(0, 1).contiguous().transpose(0, 1)

    flat = run(logits, tokens, backend)
    shaped = run(turned, tokens.view(2, 3), backend)

    for a, e in zip(shaped, flat, strict=True):
        torch.testing.assert_close(a.reshape(e.shape), e)


def test_impossible_tokens_have_no_gradient(backend: str) -> None:
    """A first block of nothing but -inf, and a chosen one."""
    logits, tokens = batch(2, 9000, 2, torch.float32)
    logits[:, :8500] = -math.inf
    tokens[:] = torch.tensor([8600, 3])

    log_probs, entropy, grad = run(logits, tokens, backend)

    assert log_probs[0].isfinite()
    assert log_probs[1] == -math.inf
    assert entropy.isfinite().all()
    assert grad.isfinite().all()
    assert (grad[0, :8500] == 0.0).all()


def test_same_bits_again_and_no_gradient_where_none_is_asked(backend: str) -> None:
    logits, tokens = batch(4, 5003, 3, torch.bfloat16)

    first = api.token_log_probs(logits, tokens, backend=backend)
    second = api.token_log_probs(logits, tokens, backend=backend)

    assert not first.requires_grad
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": torch.zeros(3).long()}, "tokens has shape [3]: expected [2]"),
        ({"tokens": torch.zeros(2)}, "tokens has dtype torch.float32: expected torch.int64 or"),
        ({"tokens": torch.tensor([0, 9])}, "tokens: token 9 at [1] is outside the vocabulary of 5"),
        ({"tokens": torch.tensor([-1, 0])}, "tokens: token -1 at [0] is outside the vocabulary"),
        ({"valid": torch.ones(2)}, "valid has dtype torch.float32: expected torch.bool"),
        ({"temperature": 0.0}, "temperature=0.0: expected a finite number > 0"),
        ({"temperature": -1.0}, "temperature=-1.0: expected a finite number > 0"),
        ({"logits": torch.zeros(2, 0)}, "logits has shape [2, 0]: expected [..., V], no size 0"),
        ({"logits": torch.zeros(5)}, "logits has shape [5]: expected [..., V], no size 0"),
        ({"logits": torch.zeros(2, 5).long()}, "logits has dtype torch.int64"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "logits": torch.zeros(2, 5),
        "tokens": torch.zeros(2, dtype=torch.long),
        **changes,
    }

    with pytest.raises(ValueError, match=re.escape(message)):
        api.token_log_probs(**arguments)


def test_the_operations_keep_their_contracts(backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch.compile traces through the reference: there is no operation")
    logits, tokens = batch(3, 9, 0, torch.float32)
    valid, ones = torch.tensor([True, False, True]), torch.ones(3)
    operations: Any = torch.ops.fastppo

    torch.library.opcheck(
        operations.token_log_probs.default,
        (backend, logits.clone().requires_grad_(), tokens, valid, 0.9),
    )
    torch.library.opcheck(
        operations.token_log_probs_gradient.default,
        (backend, logits, tokens, valid, 0.9, ones, ones),
    )


def test_compiles_into_one_graph(backend: str) -> None:
    logits, tokens = batch(3, 200, 0, torch.float32)
    logits.requires_grad_()

    def mean(logits: Tensor) -> Tensor:
        return api.token_log_probs(logits, tokens, backend=backend).mean()

    compiled: Any = torch.compile(mean, fullgraph=True, backend="aot_eager")

    actual = torch.autograd.grad(compiled(logits), logits)[0]

    torch.testing.assert_close(actual, torch.autograd.grad(mean(logits), logits)[0])


@pytest.mark.skipif(not INTERPRETED, reason="of the Triton kernels")
def test_offsets_past_2_to_the_31() -> None:
    """Three rows, 2**30 elements apart in memory that is mostly never touched."""
    from fastppo.kernels.token_log_probs import triton_gpu

    stride = 2**30  # an int32 itself, unlike twice as much
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    memory = mmap.mmap(-1, 8 * stride + 2**16, flags=flags)
    offsets = [4 * stride * row for row in range(3)]
    rows = [torch.frombuffer(memory, dtype=torch.float32, count=5, offset=o) for o in offsets]
    for seed, row in enumerate(rows):
        row.copy_(torch.randn(5, generator=torch.Generator().manual_seed(seed)))
    tokens, log_probs = torch.tensor([1, 4, 0]), torch.empty(3)
    triton_gpu.log_probs_kernel[(3,)](
        rows[0], tokens, None, log_probs, torch.empty(3), 5, stride, 1.0, DEPTH=2, LANES=4
    )

    expected = api.token_log_probs(torch.stack(rows), tokens, backend="torch")
    torch.testing.assert_close(log_probs, expected)


def test_second_derivatives_are_refused(backend: str) -> None:
    if backend == "torch":
        pytest.skip("has them")
    logits, tokens = batch(2, 5, 0, torch.float32)
    log_probs = api.token_log_probs(logits.requires_grad_(), tokens, backend=backend)

    with pytest.raises(RuntimeError, match=r"create_graph=True: .* pass backend='torch'"):
        torch.autograd.grad(log_probs, logits, torch.ones(2), create_graph=True)
