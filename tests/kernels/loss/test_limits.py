"""What the losses make of numbers at the edge: huge, masked, non-finite, out of range."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

OPTIONS: dict[str, Any] = {
    "clip_coef": 0.2,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "norm_adv": False,
}
BATCH = 20  # more than one tile of the numba kernels


def discrete(backend: str, **changes: Any) -> tuple[Tensor, api.Stats, Tensor, Tensor]:
    """Loss, statistics and both gradients of a plain batch with `changes`."""
    g = torch.Generator().manual_seed(0)
    arguments: dict[str, Any] = {
        "logits": torch.randn(BATCH, 4, generator=g),
        "new_values": torch.randn(BATCH, generator=g),
        "actions": torch.randint(4, (BATCH,), generator=g),
        "old_log_probs": torch.full((BATCH,), -1.4),
        "advantages": torch.randn(BATCH, generator=g),
        "returns": torch.randn(BATCH, generator=g),
        "old_values": torch.randn(BATCH, generator=g),
        **OPTIONS,
        **changes,
    }
    arguments["logits"] = logits = arguments["logits"].requires_grad_()
    arguments["new_values"] = values = arguments["new_values"].requires_grad_()
    loss, stats = api.categorical_ppo_loss(**arguments, backend=backend)
    d_logits, d_values = torch.autograd.grad(loss, (logits, values))
    return loss.detach(), stats, d_logits, d_values


def continuous(backend: str, **changes: Any) -> tuple[Tensor, api.Stats]:
    g = torch.Generator().manual_seed(0)
    arguments: dict[str, Any] = {
        "mean": torch.randn(BATCH, 3, generator=g),
        "log_std": torch.zeros(3),
        "new_values": torch.randn(BATCH, generator=g),
        "actions": torch.randn(BATCH, 3, generator=g),
        "old_log_probs": torch.full((BATCH,), -4.0),
        "advantages": torch.randn(BATCH, generator=g),
        "returns": torch.randn(BATCH, generator=g),
        "old_values": torch.randn(BATCH, generator=g),
        **OPTIONS,
        **changes,
    }
    return api.gaussian_ppo_loss(**arguments, backend=backend)


def test_huge_logits(backend: str) -> None:
    logits = torch.full((BATCH, 4), -1e4)
    logits[:, 2] = 1e4
    actions = torch.full((BATCH,), 2)

    loss, stats, d_logits, _ = discrete(
        backend, logits=logits, actions=actions, old_log_probs=torch.zeros(BATCH)
    )

    assert loss.isfinite()
    assert stats["entropy"] == 0.0
    assert stats["approx_kl"] == 0.0
    assert (d_logits == 0.0).all()


def test_masked_actions_have_probability_zero_and_no_gradient(backend: str) -> None:
    """The same as a policy over the allowed actions alone."""
    allowed = torch.tensor([True, False, True, False]).expand(BATCH, 4)
    logits = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(1))
    logits[:, 1] = 1e4
    actions = torch.randint(2, (BATCH,), generator=torch.Generator().manual_seed(2))

    masked = discrete(backend, logits=logits, actions=2 * actions, action_mask=allowed)
    small = discrete(backend, logits=logits[:, [0, 2]].detach(), actions=actions)

    assert (masked[2][:, [1, 3]] == 0.0).all()
    torch.testing.assert_close(masked[0], small[0])
    torch.testing.assert_close(masked[2][:, [0, 2]], small[2])
    for name in api.STATS:
        torch.testing.assert_close(masked[1][name], small[1][name])


def test_choosing_a_masked_action_is_a_ratio_of_zero(backend: str) -> None:
    allowed = torch.ones(BATCH, 4, dtype=torch.bool)
    allowed[3, 1] = False
    actions = torch.ones(BATCH, dtype=torch.long)

    loss, stats, d_logits, _ = discrete(backend, actions=actions, action_mask=allowed)

    assert loss.isfinite()
    assert stats["approx_kl"] == math.inf
    assert stats["old_approx_kl"] == math.inf
    assert d_logits.isfinite().all()
    assert d_logits[3, 1] == 0.0


@pytest.mark.parametrize("row", [0, BATCH - 1])
def test_no_allowed_action_makes_the_loss_nan(backend: str, row: int) -> None:
    allowed = torch.ones(BATCH, 4, dtype=torch.bool)
    allowed[row] = False

    loss, stats, d_logits, _ = discrete(backend, action_mask=allowed)

    assert loss.isnan()
    assert stats["entropy"].isnan()
    others = torch.arange(BATCH) != row
    assert d_logits[others].isfinite().all()


@pytest.mark.parametrize("action", [-1, 4, 10**9])
def test_action_out_of_range_makes_the_loss_nan(backend: str, action: int) -> None:
    """In a valid row. An exception would have to wait for the GPU."""
    actions = torch.zeros(BATCH, dtype=torch.long)
    actions[7] = action

    loss, stats, _, _ = discrete(backend, actions=actions)

    assert loss.isnan()
    assert stats["policy_loss"].isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logits", "new_values", "old_log_probs", "advantages", "returns"])
@pytest.mark.parametrize("norm_adv", [False, True])
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # numpy's maximum, in the interpreter
def test_non_finite_valid_row_shows_in_the_loss(
    backend: str, name: str, bad: float, norm_adv: bool
) -> None:
    if (name, bad) == ("logits", -math.inf):
        return  # an impossible action, not an error
    if (name, bad) == ("old_log_probs", math.inf):
        return  # a ratio of zero
    clean = torch.full((BATCH, 4) if name == "logits" else (BATCH,), -1.0)
    # The chosen action's advantage is negative: a clipped ratio would hide an infinite one.
    advantages = -torch.ones(BATCH) - torch.arange(BATCH) / BATCH
    clean[11, ...] = bad
    changes = {"advantages": advantages, name: clean}

    loss, _, _, _ = discrete(backend, **changes, norm_adv=norm_adv and name == "advantages")

    assert not loss.isfinite()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["mean", "log_std", "actions"])
def test_non_finite_gaussian_shows_in_the_loss(backend: str, name: str, bad: float) -> None:
    clean = torch.zeros(3) if name == "log_std" else torch.zeros(BATCH, 3)
    clean[..., 1] = bad

    loss, stats = continuous(backend, **{name: clean})

    if bad == math.inf and name != "log_std":
        # A density of zero: the ratio is 0 and only the KL can tell.
        assert stats["approx_kl"] == math.inf
    else:
        assert not loss.isfinite()


@pytest.mark.parametrize("log_ratio", [79.0, 89.0, 100.0, 1e30])
def test_a_huge_ratio_has_no_gradient_where_it_is_clipped_or_counts_for_nothing(
    backend: str, log_ratio: float
) -> None:
    old = torch.full((BATCH,), -math.log(4.0) - log_ratio)
    for advantage, dual_clip, policy_loss in (
        (1.0, None, -1.2),
        (0.0, None, 0.0),
        (-1.0, 3.0, 3.0),
    ):
        loss, stats, d_logits, _ = discrete(
            backend,
            logits=torch.zeros(BATCH, 4),
            old_log_probs=old,
            advantages=torch.full((BATCH,), advantage),
            dual_clip=dual_clip,
            vf_coef=0.0,
            ent_coef=0.0,
        )

        torch.testing.assert_close(loss, torch.tensor(policy_loss))
        torch.testing.assert_close(stats["policy_loss"], torch.tensor(policy_loss))
        assert stats["clip_frac"] == 1.0
        assert (d_logits == 0.0).all()


KINDS = {"narrow": (3,), "wide": (40,), "heads": (3, 2), "vocab": (600,), "gaussian": None}


def policy_of(kind: str, batch_size: int) -> tuple[dict[str, Tensor], dict[str, Any], Tensor]:
    """Parameters, constants, and the log-probabilities in float64; one kind per kernel."""
    g = torch.Generator().manual_seed(batch_size)
    nvec = KINDS[kind]
    if nvec is None:
        mean, actions = torch.randn(2, batch_size, 2, generator=g)
        log_std = torch.tensor([-0.5, 0.25])
        density = torch.distributions.Normal(mean.double(), log_std.double().exp())
        log_prob: Tensor = density.log_prob(actions.double()).sum(1)
        return {"mean": mean, "log_std": log_std}, {"actions": actions}, log_prob
    logits = torch.randn(batch_size, sum(nvec), generator=g)
    actions = torch.stack([torch.randint(n, (batch_size,), generator=g) for n in nvec], 1)
    log_prob = torch.zeros(batch_size, dtype=torch.float64)
    for z, action in zip(logits.double().split(list(nvec), 1), actions.unbind(1), strict=True):
        log_prob += z.log_softmax(1).gather(1, action[:, None])[:, 0]
    constants = {"actions": actions, "nvec": nvec} if len(nvec) > 1 else {"actions": actions[:, 0]}
    return {"logits": logits}, constants, log_prob


def evaluate(
    parameters: dict[str, Tensor], constants: dict[str, Any], backend: str, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss and statistics, and the gradients."""

    def cast(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    leaves = {name: cast(x).detach().requires_grad_() for name, x in parameters.items()}
    function: Any = api.gaussian_ppo_loss if "mean" in leaves else api.categorical_ppo_loss
    loss, stats = function(
        **leaves, **{n: cast(x) for n, x in constants.items()}, **OPTIONS, backend=backend
    )
    grads = torch.autograd.grad(loss, list(leaves.values()))
    numbers = {"loss": loss.detach(), **stats}
    return (
        {name: x.double() for name, x in numbers.items()},
        {name: x.double() for name, x in zip(leaves, grads, strict=True)},
    )


@given(
    kind=st.sampled_from(list(KINDS)),
    rows=st.lists(
        st.tuples(
            st.floats(-200.0, 200.0, width=32),
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.5, -100.0]),
            st.booleans(),
        ),
        min_size=1,
        max_size=40,
    ),
    dual_clip=st.sampled_from([None, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_log_ratio_gives_what_float64_gives(
    backend: str, kind: str, rows: list[tuple[float, float, bool]], dual_clip: float | None
) -> None:
    """Also next to rows that are not valid and hold NaN."""
    parameters, constants, log_prob = policy_of(kind, len(rows))
    log_ratio, advantages, valid = (torch.tensor(column) for column in zip(*rows, strict=True))
    for kink in (0.8, 1.2, 3.0):  # where float32 and float64 could take different sides
        near = (log_ratio - math.log(kink)).abs() < 1e-3
        log_ratio = torch.where(near, log_ratio + 3e-3, log_ratio)
    poison = torch.where(valid, 0.0, math.nan)
    parameters["new_values"] = torch.zeros(len(rows)) + poison
    constants |= {
        "old_log_probs": (log_prob - log_ratio).float() + poison,
        "advantages": advantages + poison,
        "returns": torch.ones(len(rows)) + poison,
        "old_values": poison,
        "valid": valid,
        "dual_clip": dual_clip,
    }

    numbers, grads = evaluate(parameters, constants, backend, torch.float32)

    exact_numbers, exact_grads = evaluate(parameters, constants, "torch", torch.float64)
    # rounding a log-ratio of 200 to float32 is a factor of 1e-5 on its ratio
    for name, number in numbers.items():
        assert number.isfinite(), name
        torch.testing.assert_close(number, exact_numbers[name], rtol=1e-4, atol=1e-5)
    for name, grad in grads.items():
        assert grad.isfinite().all(), name
        # by rows: the largest hides nothing
        torch.testing.assert_close(grad, exact_grads[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_an_action_far_out_has_no_gradient(backend: str, advantage: float, per_row: bool) -> None:
    """Its square overflows float32, its ratio is 0: inf * 0 must not be in the gradient."""
    actions = torch.zeros(BATCH, 3)
    actions[7, 1] = 1e25
    parameters = {"mean": torch.zeros(BATCH, 3), "log_std": torch.zeros(BATCH, 3)}
    if not per_row:
        parameters["log_std"] = torch.zeros(3)
    parameters["new_values"] = torch.zeros(BATCH)
    constants = {
        "actions": actions,
        "old_log_probs": torch.full((BATCH,), -2.8),
        "advantages": torch.full((BATCH,), advantage),
        "returns": torch.zeros(BATCH),
        "old_values": torch.zeros(BATCH),
    }

    _, grads = evaluate(parameters, constants, backend, torch.float32)

    _, expected = evaluate(parameters, constants, "torch", torch.float64)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_an_infinite_log_ratio_shows_in_the_loss(
    backend: str, kind: str, dual_clip: float | None, advantage: float
) -> None:
    """However the row is clipped: a loss that is finite would hide it."""
    parameters, constants, log_prob = policy_of(kind, BATCH)
    constants |= {
        "old_log_probs": log_prob.float().index_fill(0, torch.tensor([11]), -math.inf),
        "advantages": torch.full((BATCH,), advantage),
        "returns": torch.zeros(BATCH),
        "old_values": torch.zeros(BATCH),
        "dual_clip": dual_clip,
    }
    parameters["new_values"] = torch.zeros(BATCH)

    numbers, _ = evaluate(parameters, constants, backend, torch.float32)

    assert numbers["loss"].isnan()


@pytest.mark.parametrize("width", [1, 100, 5000])
def test_wide_and_narrow_heads(backend: str, width: int) -> None:
    logits = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    rest = [torch.zeros(3) for _ in range(5)]
    actions = torch.tensor([0, width // 2, width - 1])
    actual, expected = (
        api.categorical_ppo_loss(
            z.requires_grad_(),
            *(rest[0].to(z), actions),
            *(t.to(z) for t in rest[1:]),
            **OPTIONS,
            backend=name,
        )
        for z, name in ((logits.clone(), backend), (logits.double(), "torch"))
    )

    for name in api.STATS:
        torch.testing.assert_close(
            actual[1][name].double(), expected[1][name], rtol=2e-5, atol=1e-5
        )
