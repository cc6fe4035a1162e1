"""The loss of tokens from hidden states is that of their logits, and never holds them all."""

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_batches import OF_TOKENS, REDUCTIONS, draw, whole_number
from torch import Tensor

from fastppo.bench.peers.token_child import peak_bytes
from fastppo.kernels import api

DEPTH = 6
Result = tuple[Tensor, api.Stats, dict[str, Tensor]]


def layer(
    batch: int, length: int, width: int, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hidden states, weight, bias and values, and the other arguments of a loss."""
    arguments = draw(batch, length, width, dtype=dtype, **options)
    g = torch.Generator().manual_seed(1)
    parameters = {
        "hidden": torch.randn(batch, length, DEPTH, generator=g).to(dtype),
        "weight": torch.randn(width, DEPTH, generator=g).to(dtype),
        "bias": torch.randn(width, generator=g).to(dtype),
        "new_values": arguments.pop("new_values"),
    }
    # near the policy of these logits, else every ratio saturates
    log_p = logits_of(parameters).double().div(arguments["temperature"]).log_softmax(-1)
    chosen = arguments["actions"].clamp(0, width - 1)
    now = log_p.gather(-1, chosen[..., None])[..., 0].float()
    arguments["old_log_probs"] = arguments["old_log_probs"] * 0.0 + now - math.log(1.1)
    arguments["ref_log_probs"] = arguments["ref_log_probs"] * 0.0 + now + 0.3
    del arguments["logits"]
    return parameters, arguments


def logits_of(parameters: dict[str, Tensor]) -> Tensor:
    logits = parameters["hidden"] @ parameters["weight"].T
    return logits + parameters["bias"] if "bias" in parameters else logits


def leaves_of(parameters: dict[str, Tensor]) -> dict[str, Any]:
    return {name: x.detach().clone().requires_grad_() for name, x in parameters.items()}


def linear(
    parameters: dict[str, Tensor], arguments: dict[str, Any], backend: str, **options: Any
) -> Result:
    leaves, arguments = leaves_of(parameters), dict(arguments)
    tokens = arguments.pop("actions")
    loss, stats = api.linear_token_ppo_loss(
        **leaves, tokens=tokens, **arguments, **options, backend=backend
    )
    (2.0 * loss).backward()
    return loss.detach(), stats, {n: x.grad for n, x in leaves.items() if x.grad is not None}


def whole(parameters: dict[str, Tensor], arguments: dict[str, Any], backend: str) -> Result:
    leaves = leaves_of(parameters)
    loss, stats = api.categorical_ppo_loss(
        logits_of(leaves), leaves["new_values"], **arguments, backend=backend
    )
    (2.0 * loss).backward()
    return loss.detach(), stats, {n: x.grad for n, x in leaves.items() if x.grad is not None}


def assert_same(actual: Result, expected: Result, **tolerance: float) -> None:
    near: Any = {"rtol": 1e-4, "atol": 1e-5, **tolerance}
    torch.testing.assert_close(actual[0], expected[0], **near)
    assert actual[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(actual[1][name], value, **near)
    assert actual[2].keys() == expected[2].keys()
    for name, value in expected[2].items():
        assert actual[2][name].dtype == value.dtype
        torch.testing.assert_close(actual[2][name].float(), value.float(), **near)


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 4),
    width=st.sampled_from([1, 17, 200]),
    chunk=st.integers(1, 20),
    reduction=st.sampled_from(REDUCTIONS),
    temperature=st.sampled_from([1.0, 0.6]),
    estimator=st.sampled_from(["k2", "k3", "k3_is"]),
    normalizer=st.sampled_from([None, 5.0, torch.tensor(7)]),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_loss_of_its_logits(
    backend: str,
    batch: int,
    length: int,
    width: int,
    chunk: int,
    reduction: str,
    temperature: float,
    estimator: str,
    normalizer: float | Tensor | None,
    with_bias: bool,
    seed: int,
) -> None:
    parameters, arguments = layer(
        batch,
        length,
        width,
        seed=seed,
        reduction=reduction,
        temperature=temperature,
        kl_estimator=estimator,
        normalizer=normalizer,
    )
    if not with_bias:
        del parameters["bias"]

    actual = linear(parameters, arguments, backend, chunk=chunk)

    assert_same(actual, whole(parameters, arguments, backend))


def test_bfloat16_adds_up_in_float32(backend: str) -> None:
    """Many chunks: in bfloat16 a sum stops growing at 256 times its terms."""
    parameters, arguments = layer(8, 64, 40, dtype=torch.bfloat16, holes=False)
    exact = {name: x.float() for name, x in parameters.items()}

    actual = linear(parameters, arguments, backend, chunk=1)
    expected = linear(exact, arguments, backend, chunk=512)

    for name, grad in expected[2].items():
        error = (actual[2][name].float() - grad).norm() / grad.norm()
        assert error < 2e-2, name


def test_micro_batches_add_up(backend: str) -> None:
    for reduction in REDUCTIONS:
        parameters, arguments = layer(4, 5, 30, reduction=reduction)
        expected = linear(parameters, arguments, backend)
        arguments["normalizer"] = whole_number(arguments, reduction)
        total = {name: torch.zeros_like(grad) for name, grad in expected[2].items()}
        for rows in (slice(0, 1), slice(1, 4)):
            part = linear(
                {n: x[rows] if n in ("hidden", "new_values") else x for n, x in parameters.items()},
                {n: x[rows] if n in OF_TOKENS else x for n, x in arguments.items()},
                backend,
            )
            for name, grad in part[2].items():
                if name in ("hidden", "new_values"):
                    total[name][rows] += grad
                else:
                    total[name] += grad

        for name, grad in expected[2].items():
            torch.testing.assert_close(total[name], grad, rtol=1e-4, atol=1e-6)


def test_all_masked_is_no_loss_and_no_gradient(backend: str) -> None:
    parameters, arguments = layer(2, 3, 10, holes=False)
    arguments["valid"] = torch.zeros(2, 3, dtype=torch.bool)

    loss, stats, grads = linear(parameters, arguments, backend)

    assert loss == 0.0
    assert all(value == 0.0 for value in stats.values())
    assert all((grad == 0.0).all() for grad in grads.values())


def test_only_the_gradients_that_are_wanted(backend: str) -> None:
    parameters, arguments = layer(2, 3, 10, holes=False)
    tokens = arguments.pop("actions")
    leaves = leaves_of(parameters)
    leaves["weight"].requires_grad_(False)
    with torch.no_grad():
        plain, _ = api.linear_token_ppo_loss(**leaves, tokens=tokens, **arguments, backend=backend)

    loss, _ = api.linear_token_ppo_loss(**leaves, tokens=tokens, **arguments, backend=backend)
    loss.backward()

    assert not plain.requires_grad
    assert plain == loss
    assert leaves["weight"].grad is None
    assert leaves["hidden"].grad is not None


def test_backward_runs_once() -> None:
    parameters, arguments = layer(2, 3, 10, holes=False)
    tokens = arguments.pop("actions")
    loss, _ = api.linear_token_ppo_loss(**leaves_of(parameters), tokens=tokens, **arguments)
    loss.backward(retain_graph=True)

    with pytest.raises(RuntimeError, match="a second backward pass; the first spent"):
        loss.backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk": 0}, "chunk=0: expected a number of rows, 1 or more"),
        ({"norm_adv": True}, "norm_adv=True: mean and spread would be those of a chunk"),
        ({"weight": torch.zeros(10, 5)}, "weight has shape [10, 5]: expected [10, 6]"),
        ({"weight": torch.zeros(10, 6).double()}, "weight has dtype torch.float64: expected torch"),
        ({"bias": torch.zeros(9)}, "bias has shape [9]: expected [10]"),
        ({"tokens": torch.zeros(2, 4).long()}, "tokens has shape [2, 4]: expected [2, 3]"),
        ({"tokens": torch.full((2, 3), 10)}, "tokens: token 10 at [0, 0] is outside the vocab"),
        ({"advantages": torch.zeros(6)}, "advantages has shape [6]: expected [2, 3]"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    parameters, arguments = layer(2, 3, 10, holes=False)
    arguments["tokens"] = arguments.pop("actions")

    with pytest.raises(ValueError, match=re.escape(message)):
        api.linear_token_ppo_loss(**{**parameters, **arguments, **changes})


def test_peak_memory_is_a_chunk_of_logits_and_the_weights_gradient() -> None:
    rows, width, depth, chunk = 512, 8000, 64, 128
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, depth, generator=g).requires_grad_()
    weight = torch.randn(width, depth, generator=g).requires_grad_()
    tokens, ones = torch.randint(width, (rows,), generator=g), torch.ones(rows)
    options: dict[str, Any] = {"clip_coef": 0.2, "chunk": chunk, "backend": "numba"}

    def step() -> None:
        loss, _ = api.linear_token_ppo_loss(hidden, weight, tokens, -9.0 * ones, ones, **options)
        loss.backward()

    step()
    hidden.grad = weight.grad = None

    assert peak_bytes(step) <= 1.1 * 4 * (chunk * width + width * depth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_of_overwritten_logits(dtype: torch.dtype) -> None:
    """Nothing of the logits' size is allocated, so that the peak is the logits themselves."""
    logits = torch.randn(64, 32_000).to(dtype).requires_grad_()
    tokens, ones = torch.zeros(64, dtype=torch.long), torch.ones(64)

    def step() -> None:
        loss, _ = api.categorical_ppo_loss(
            logits, None, tokens, -9.0 * ones, ones, None, None, clip_coef=0.2, vf_coef=0.0,
            ent_coef=0.01, norm_adv=False, overwrite_logits=True, backend="numba",
        )  # fmt: skip
        loss.backward()

    step()

    assert peak_bytes(step) <= 0.1 * logits.numel() * logits.element_size()
