"""The categorical loss over very many actions, on every backend: rows as wide as a vocabulary."""

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api
from fastppo.kernels.loss.terms import LOG_RATIO_MAX

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 15 if INTERPRETED else 30}
OPTIONS: dict[str, Any] = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01, "norm_adv": False}
FLOAT32: dict[str, Any] = {"rtol": 3e-5, "atol": 1e-5}
# of a gradient rounded to bfloat16; Triton's interpreter truncates where a GPU rounds
BFLOAT16: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-6}

Result = tuple[Tensor, api.Stats, Tensor, Tensor]


def arguments_of(
    batch_size: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Arguments of a loss whose ratios lie away from 1 - clip_coef and 1 + clip_coef."""
    g = torch.Generator().manual_seed(seed)
    logits = (3.0 * torch.randn(batch_size, width, generator=g)).to(dtype)
    actions = torch.randint(width, (batch_size,), generator=g)
    log_probs = logits.double().log_softmax(1).gather(1, actions[:, None])[:, 0]
    ratios = torch.tensor([0.5, 0.9, 1.1, 1.7])[torch.randint(4, (batch_size,), generator=g)]
    rows = torch.randn(4, batch_size, generator=g)
    return {
        "logits": logits,
        "new_values": rows[0],
        "actions": actions,
        "old_log_probs": (log_probs - ratios.double().log()).float(),
        "advantages": rows[1],
        "returns": rows[2],
        "old_values": rows[3],
        **OPTIONS,
    }


def run(arguments: dict[str, Any], backend: str) -> Result:
    """Loss, statistics and both gradients."""
    logits = arguments["logits"].detach().requires_grad_()
    values = arguments["new_values"].detach().requires_grad_()
    arguments = {**arguments, "logits": logits, "new_values": values}
    loss, stats = api.categorical_ppo_loss(**arguments, backend=backend)
    loss.backward()
    assert logits.grad is not None
    assert values.grad is not None
    return loss.detach(), stats, logits.grad, values.grad


def oracle(arguments: dict[str, Any]) -> Result:
    exact = {
        n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for n, x in arguments.items()
        if n != "overwrite_logits"
    }
    return run(exact, "torch")


def assert_same(actual: Result, expected: Result) -> None:
    torch.testing.assert_close(actual[0].double(), expected[0], **FLOAT32)
    for name in api.STATS:
        torch.testing.assert_close(actual[1][name].double(), expected[1][name], **FLOAT32)
    tolerance = BFLOAT16 if actual[2].dtype == torch.bfloat16 else FLOAT32
    torch.testing.assert_close(actual[2].double(), expected[2], **tolerance)
    torch.testing.assert_close(actual[3].double(), expected[3], **FLOAT32)


def with_masks(arguments: dict[str, Any], valid: bool, masked: bool) -> dict[str, Any]:
    """Every third row invalid, and poisoned; every fifth action impossible unless chosen."""
    batch_size, width = arguments["logits"].shape
    if valid:
        ok = torch.arange(batch_size) % 3 != 1
        for name in ("logits", "new_values", "old_log_probs", "advantages", "returns"):
            arguments[name][~ok] = math.nan
        arguments["actions"][~ok] = 10**9
        arguments["valid"] = ok
    if masked:
        allowed = (torch.arange(width) % 5 != 2).repeat(batch_size, 1)
        rows = torch.arange(batch_size)
        allowed[rows, arguments["actions"].clamp(0, width - 1)] = True
        arguments["action_mask"] = allowed
    return arguments


@settings(**SETTINGS)
@given(
    batch_size=st.integers(1, 5),
    width=st.sampled_from([129, 512, 513, 1025, 2048, 4100, 5003]),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    valid=st.booleans(),
    masked=st.booleans(),
)
def test_matches_float64_reference(
    backend: str,
    batch_size: int,
    width: int,
    seed: int,
    dtype: torch.dtype,
    valid: bool,
    masked: bool,
) -> None:
    arguments = with_masks(arguments_of(batch_size, width, seed, dtype), valid, masked)

    actual = run(arguments, backend)

    assert actual[2].dtype == dtype
    assert_same(actual, oracle(arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary(backend: str, dtype: torch.dtype) -> None:
    arguments = arguments_of(2, 131_072, dtype=dtype)

    assert_same(run(arguments, backend), oracle(arguments))


@pytest.mark.parametrize("by_mask", [False, True])
@pytest.mark.parametrize("where", [slice(None, 9000), slice(8192, None), slice(4096, 8192)])
def test_a_block_of_nothing_but_impossible_actions(
    backend: str, where: slice, by_mask: bool
) -> None:
    """-inf - -inf would be NaN."""
    arguments = arguments_of(2, 10_000)
    action = 9500 if where.stop == 9000 else 5
    arguments["actions"][:] = action
    arguments["old_log_probs"][:] = arguments["logits"].log_softmax(1)[:, action] + 0.5
    impossible = torch.zeros(2, 10_000, dtype=torch.bool)
    impossible[:, where] = True
    if by_mask:
        arguments["action_mask"] = ~impossible
    else:
        arguments["logits"][impossible] = -math.inf

    actual = run(arguments, backend)

    assert actual[0].isfinite()
    assert (actual[2][impossible] == 0.0).all()
    assert_same(actual, oracle(arguments))


@pytest.mark.parametrize("width", [20, 300, 5000])
def test_no_allowed_action_makes_the_loss_nan(backend: str, width: int) -> None:
    arguments = arguments_of(3, width)
    arguments["action_mask"] = torch.ones(3, width, dtype=torch.bool)
    arguments["action_mask"][1] = False

    loss, stats, d_logits, _ = run(arguments, backend)

    assert loss.isnan()
    assert stats["entropy"].isnan()
    assert d_logits[[0, 2]].isfinite().all()


@pytest.mark.parametrize("action", [-1, 5000, 10**9])
def test_action_out_of_range_makes_the_loss_nan(backend: str, action: int) -> None:
    arguments = arguments_of(2, 5000)
    arguments["actions"][1] = action

    assert run(arguments, backend)[0].isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [0, 4999])
def test_non_finite_logit_shows_in_the_loss(backend: str, bad: float, column: int) -> None:
    arguments = arguments_of(2, 5000)
    arguments["actions"][:] = 7
    arguments["logits"][0, column] = bad

    assert run(arguments, backend)[0].isnan()


def test_a_huge_ratio_is_bounded(backend: str) -> None:
    """A good action is clipped, a bad one has a huge loss, and both have a gradient."""
    arguments = {**arguments_of(2, 2000), "ent_coef": 0.0}
    arguments["old_log_probs"][:] = -1000.0

    good = run({**arguments, "advantages": torch.ones(2)}, backend)
    bad = run({**arguments, "advantages": -torch.ones(2)}, backend)

    torch.testing.assert_close(good[1]["policy_loss"], torch.tensor(-1.2))
    assert (good[2] == 0.0).all()
    assert bad[2].isfinite().all()
    torch.testing.assert_close(bad[1]["policy_loss"], torch.tensor(math.exp(LOG_RATIO_MAX)))


def test_huge_logits_of_one_sign(backend: str) -> None:
    """Far below the floor that a running maximum might start from."""
    arguments = arguments_of(2, 3000)
    arguments["logits"] -= 1e30
    arguments["logits"][:, 17] = 0.0
    arguments["actions"][:] = 17
    arguments["old_log_probs"][:] = 0.0

    loss, stats, d_logits, _ = run(arguments, backend)

    assert loss.isfinite()
    assert stats["entropy"] == 0.0
    assert (d_logits == 0.0).all()


def test_rows_may_lie_apart(backend: str) -> None:
    arguments = arguments_of(3, 2000)
    apart = torch.full((3, 2055), math.nan)
    apart[:, :2000] = arguments["logits"]
    mask = torch.arange(2000) % 7 != 3
    mask[arguments["actions"]] = True
    arguments |= {"logits": apart[:, :2000], "action_mask": mask.expand(3, 2000)}

    assert_same(run(arguments, backend), oracle(arguments))


def overwriting(logits: Tensor, arguments: dict[str, Any], backend: str) -> Tensor:
    """The gradient of `logits`, computed with overwrite_logits."""
    leaf = logits.detach().requires_grad_()
    loss, _ = api.categorical_ppo_loss(
        **{**arguments, "logits": leaf, "overwrite_logits": True}, backend=backend
    )
    loss.backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [6, 100, 1500, 9000])
@pytest.mark.parametrize("layout", ["dense", "rows apart", "transposed"])
def test_the_gradient_overwrites_the_logits(
    backend: str, layout: str, width: int, dtype: torch.dtype
) -> None:
    if backend == "torch":
        pytest.skip("refuses overwrite_logits")
    arguments = with_masks(arguments_of(4, width, dtype=dtype), valid=True, masked=False)
    expected = run(arguments, backend)[2]
    logits = arguments["logits"].clone()
    if layout == "rows apart":
        logits = torch.cat([logits, logits[:, :3]], 1)[:, :width]
    elif layout == "transposed":
        logits = logits.T.contiguous().T

    actual = overwriting(logits, arguments, backend)

    assert torch.equal(actual, expected)
    assert torch.equal(logits, expected)


def test_the_reference_refuses_to_overwrite() -> None:
    arguments = arguments_of(2, 300)

    with pytest.raises(ValueError, match="overwrite_logits=True"):
        api.categorical_ppo_loss(**arguments, overwrite_logits=True, backend="torch")


def test_same_input_gives_the_same_bits(backend: str) -> None:
    arguments = arguments_of(4, 5003)

    first, second = run(arguments, backend), run(arguments, backend)

    assert torch.equal(first[0], second[0])
    assert torch.equal(first[2], second[2])


def test_compiles_into_one_graph(backend: str) -> None:
    arguments = arguments_of(3, 1500, dtype=torch.bfloat16)
    logits = arguments.pop("logits").requires_grad_()

    def loss_of(logits: Tensor) -> Tensor:
        return api.categorical_ppo_loss(logits, **arguments, backend=backend)[0]

    compiled: Any = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss_of(logits), logits)[0]

    actual = torch.autograd.grad(compiled(logits), logits)[0]

    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected, **BFLOAT16)
