"""Both fused losses, on every backend, against the reference in float64: values and gradients."""

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastppo.kernels import api

distributions: Any = torch.distributions  # half typed

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 25 if INTERPRETED else 100}
# For numbers of order one: means over rows, and gradients times the number of rows.
FLOAT32: dict[str, Any] = {"rtol": 2e-5, "atol": 1e-5}
MARGIN = 1e-3  # distance from every kink, where float32 and float64 could take different sides

Result = tuple[Tensor, api.Stats, dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """Arguments of one loss. Float tensors hold float32 numbers."""

    parameters: dict[str, Tensor]
    constants: dict[str, Tensor]
    options: dict[str, Any]

    def rows(self, keep: Tensor) -> "Case":
        """The same without the rows that are not in `keep` [B], and so without `valid`."""
        batch_size = len(keep)

        def pick(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            shared = {"log_std"} if tensors.get("log_std", keep).ndim == 1 else set()
            return {n: t if n in shared else t[keep] for n, t in tensors.items()}

        assert self.constants["advantages"].shape == (batch_size,)
        constants = pick(self.constants)
        constants.pop("valid", None)
        return replace(self, parameters=pick(self.parameters), constants=constants)


def run(case: Case, backend: str, dtype: torch.dtype = torch.float32) -> Result:
    """Loss, statistics, and the gradients of 3 * loss."""

    def cast(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}

    parameters = {n: t.detach().requires_grad_() for n, t in cast(case.parameters).items()}
    loss_of = api.gaussian_ppo_loss if "mean" in parameters else api.categorical_ppo_loss
    device = torch.device("cpu")
    assert api.resolve_backend(backend, device, dtype) == backend
    arguments: dict[str, Any] = {**parameters, **cast(case.constants), **case.options}
    loss, stats = loss_of(**arguments, backend=backend)
    (3.0 * loss).backward()
    grads = {n: t.grad for n, t in parameters.items() if t.grad is not None}
    assert grads.keys() == parameters.keys()
    return loss.detach(), stats, grads


def divisor(case: Case) -> float:
    """What the sums over rows were divided by: times that, a row's gradient is its own again."""
    normalizer, valid = case.options["normalizer"], case.constants.get("valid")
    rows = len(case.constants["advantages"]) if valid is None else int(valid.sum())
    return float(normalizer) if normalizer is not None else max(1.0, float(rows))


def assert_same(actual: Result, expected: Result, divided_by: float | None = None) -> None:
    torch.testing.assert_close(actual[0].double(), expected[0], **FLOAT32)
    assert tuple(actual[1]) == api.STATS
    for name, value in expected[1].items():
        stat = actual[1][name]
        assert stat.shape == ()
        assert not stat.requires_grad
        torch.testing.assert_close(stat.double(), value, **FLOAT32)
    rows = divided_by or len(expected[2]["new_values"])
    for name, value in expected[2].items():
        unit = 1.0 if name == "log_std" and value.ndim == 1 else rows
        torch.testing.assert_close(actual[2][name].double() * unit, value * unit, **FLOAT32)


def away_from(x: Tensor, *kinks: float) -> Tensor:
    for kink in kinks:
        x = torch.where((x - kink).abs() < MARGIN, kink + 2 * MARGIN, x)
    return x


def rows_of(log_prob: Tensor, g: torch.Generator, options: dict[str, Any]) -> dict[str, Tensor]:
    """new_values and the [B] constants, with ratios and values clear of every kink."""
    batch_size = len(log_prob)

    def draw() -> Tensor:
        return torch.randn(batch_size, generator=g, dtype=torch.float64)

    clip, dual, near = options["clip_coef"], options["dual_clip"], options["clip_vloss"]
    ratio = away_from((0.4 * draw()).exp(), 1.0 - clip, 1.0 + clip, dual or 1.0 + clip)
    step = draw()
    old_values, returns = draw(), draw()
    if near is not None:
        step = away_from(step, -near, near)
        clipped = step.clamp(-near, near)
        middle = old_values + (step + clipped) / 2  # equally far from both values
        tie = (step != clipped) & ((returns - middle).abs() < MARGIN)
        returns = torch.where(tie, middle + 2 * MARGIN, returns)
    return {
        "new_values": old_values + step,
        "old_log_probs": log_prob - ratio.log(),
        "advantages": draw() + 0.5,
        "returns": returns,
        "old_values": old_values,
    }


def case_of(
    parameters: dict[str, Tensor],
    constants: dict[str, Tensor],
    log_prob: Tensor,
    g: torch.Generator,
    options: dict[str, Any],
) -> Case:
    rows = rows_of(log_prob, g, options)
    parameters = {**parameters, "new_values": rows.pop("new_values")}
    constants = {**constants, **rows}
    narrow = [
        {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
        for tensors in (parameters, constants)
    ]
    return Case(narrow[0], narrow[1], options)


OPTIONS: dict[str, Any] = {
    "clip_coef": 0.2,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "clip_vloss": 0.2,
    "dual_clip": 1.5,
}


def categorical(
    batch_size: int,
    nvec: tuple[int, ...],
    seed: int = 0,
    *,
    scale: float = 1.0,
    masked: bool = False,
    **options: Any,
) -> Case:
    """Random arguments; one head goes without `nvec`. The log-probabilities are torch's."""
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch_size, sum(nvec), generator=g).double()
    heads = [torch.randint(n, (batch_size,), generator=g) for n in nvec]
    allowed = torch.rand(logits.shape, generator=g) < 0.6
    log_prob = torch.zeros(batch_size, dtype=torch.float64)
    for z, mask, action in zip(
        torch.split(logits, list(nvec), 1), torch.split(allowed, list(nvec), 1), heads, strict=True
    ):
        mask[torch.arange(batch_size), action] = True
        z = z.where(mask, torch.tensor(-math.inf)) if masked else z
        log_prob += distributions.Categorical(logits=z, validate_args=False).log_prob(action)
    options = {**OPTIONS, **options}
    constants = {"actions": torch.stack(heads, 1) if len(nvec) > 1 else heads[0]}
    if len(nvec) > 1:
        options["nvec"] = nvec
    if masked:
        constants["action_mask"] = allowed
    return case_of({"logits": logits}, constants, log_prob, g, options)


def gaussian(
    batch_size: int, width: int, seed: int = 0, *, per_row: bool = False, **options: Any
) -> Case:
    g = torch.Generator().manual_seed(seed)
    shape = (batch_size, width)
    mean = torch.randn(shape, generator=g).double()
    log_std = 0.3 * torch.randn(shape if per_row else (width,), generator=g).double()
    actions = mean + log_std.exp() * torch.randn(shape, generator=g)
    log_prob = distributions.Normal(mean, log_std.exp()).log_prob(actions).sum(1)
    parameters = {"mean": mean, "log_std": log_std}
    return case_of(parameters, {"actions": actions}, log_prob, g, {**OPTIONS, **options})


CASES = {
    "categorical": categorical(37, (6,)),
    "masked": categorical(37, (5,), masked=True),
    "multi": categorical(37, (3, 5, 2), masked=True),
    "gaussian": gaussian(37, 6),
    "per_row": gaussian(37, 3, per_row=True),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def with_valid(case: Case, pattern: str, seed: int = 0) -> Case:
    """`case` with `valid`: "absent", "none", "one", "all" or "some" of the rows."""
    batch_size = len(case.constants["advantages"])
    valid = torch.rand(batch_size, generator=torch.Generator().manual_seed(seed)) < 0.6
    if pattern == "absent":
        return case
    if pattern != "some":
        valid[:] = pattern == "all"
    if pattern == "one":
        valid[seed % batch_size] = True
    return replace(case, constants={**case.constants, "valid": valid})


options = st.fixed_dictionaries(
    {
        "clip_coef": st.sampled_from([0.1, 0.2]),
        "vf_coef": st.sampled_from([0.0, 0.5]),
        "ent_coef": st.sampled_from([0.0, 0.01]),
        "clip_vloss": st.sampled_from([None, 0.2]),
        "dual_clip": st.sampled_from([None, 1.5]),
        "norm_adv": st.booleans(),
        "normalizer": st.sampled_from([None, 70.0, torch.tensor(110), torch.tensor(95.5)]),
    }
)
batch_sizes = st.integers(1, 70) | st.sampled_from([1, 2, 16, 17, 128, 129, 257])
patterns = st.sampled_from(["absent", "none", "one", "all", "some"])
seeds = st.integers(0, 2**31)


@settings(**SETTINGS)
@given(
    batch_size=batch_sizes,
    nvec=st.integers(1, 18).map(lambda n: (n,)) | st.sampled_from([(2, 3), (4, 1, 7), (33,)]),
    seed=seeds,
    scale=st.sampled_from([0.01, 1.0, 10.0]),
    masked=st.booleans(),
    pattern=patterns,
    options=options,
)
def test_categorical_matches_float64_reference(
    backend: str,
    batch_size: int,
    nvec: tuple[int, ...],
    seed: int,
    scale: float,
    masked: bool,
    pattern: str,
    options: dict[str, Any],
) -> None:
    case = categorical(batch_size, nvec, seed, scale=scale, masked=masked, **options)
    case = with_valid(case, pattern, seed)

    assert_same(run(case, backend), run(case, "torch", torch.float64), divisor(case))


@settings(**SETTINGS)
@given(
    batch_size=batch_sizes,
    width=st.integers(1, 21),
    seed=seeds,
    per_row=st.booleans(),
    pattern=patterns,
    options=options,
)
def test_gaussian_matches_float64_reference(
    backend: str,
    batch_size: int,
    width: int,
    seed: int,
    per_row: bool,
    pattern: str,
    options: dict[str, Any],
) -> None:
    case = with_valid(gaussian(batch_size, width, seed, per_row=per_row, **options), pattern, seed)

    assert_same(run(case, backend), run(case, "torch", torch.float64), divisor(case))


@every_case
@pytest.mark.parametrize("normalizer", [None, 3.0, torch.tensor(0.0), torch.tensor(0)])
def test_no_valid_row_gives_zero_loss_statistics_and_gradients(
    backend: str, case: Case, normalizer: float | Tensor | None
) -> None:
    case = with_valid(case, "none")
    case = replace(case, options={**case.options, "normalizer": normalizer})

    loss, stats, grads = run(case, backend)

    assert loss == 0.0
    assert all(stat == 0.0 for stat in stats.values())
    assert all((grad == 0.0).all() for grad in grads.values())


@every_case
@pytest.mark.parametrize("poison", [math.nan, math.inf, -1e30])
@pytest.mark.parametrize("pattern", ["none", "one", "some"])
def test_invalid_rows_change_nothing(backend: str, case: Case, pattern: str, poison: float) -> None:
    """Against the same loss of the valid rows alone; its own gradients are exactly zero."""
    case = with_valid(case, pattern, seed=4)
    valid = case.constants["valid"]
    garbage = torch.where(torch.arange(len(valid)) % 2 == 0, 10**9, -5)

    def poisoned(name: str, tensor: Tensor) -> Tensor:
        if name == "valid" or (name == "log_std" and tensor.ndim == 1):
            return tensor
        if not tensor.is_floating_point():
            fill = garbage if tensor.dtype != torch.bool else torch.zeros_like(valid)
            fill = fill if tensor.ndim == 1 else fill[:, None].expand_as(tensor)
        else:
            fill = torch.full_like(tensor, poison)
        return tensor.where(valid if tensor.ndim == 1 else valid[:, None], fill)

    dirty = Case(
        {n: poisoned(n, t) for n, t in case.parameters.items()},
        {n: poisoned(n, t) for n, t in case.constants.items()},
        case.options,
    )

    actual, same_backend = run(dirty, backend), run(case, backend)

    assert torch.equal(actual[0], same_backend[0])
    assert all(torch.equal(actual[1][n], same_backend[1][n]) for n in api.STATS)
    for name, grad in actual[2].items():
        assert torch.equal(grad, same_backend[2][name])
        if name != "log_std" or grad.ndim == 2:
            assert (grad[~valid] == 0.0).all()
    if pattern != "none":
        alone = run(case.rows(valid), "torch", torch.float64)
        grads = {n: g if g.shape == alone[2][n].shape else g[valid] for n, g in actual[2].items()}
        assert_same((actual[0], actual[1], grads), alone)


@every_case
def test_advantages_far_from_zero_are_normalised(backend: str, case: Case) -> None:
    """Mean 1000, spread 1e-2: a sum of squares in float32 would have no digit left."""
    near = (1000.0 + 0.01 * case.constants["advantages"].double()).float()
    case = with_valid(replace(case, constants={**case.constants, "advantages": near}), "some")
    expected = run(case, "torch", torch.float64)

    assert expected[2]["new_values"].isfinite().all()
    assert_same(run(case, backend), expected)


@every_case
def test_same_input_gives_the_same_bits(backend: str, case: Case) -> None:
    first, second = run(case, backend), run(case, backend)

    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][n], second[1][n]) for n in api.STATS)
    assert all(torch.equal(first[2][n], second[2][n]) for n in first[2])


@every_case
def test_strided_inputs_are_honoured(backend: str, case: Case) -> None:
    def strided(tensor: Tensor) -> Tensor:
        if tensor.ndim == 2:
            return tensor.T.contiguous().T
        return torch.stack([tensor, tensor], 1)[:, 0]

    case = with_valid(case, "some")
    loose = Case(
        {n: strided(t) for n, t in case.parameters.items()},
        {n: strided(t) for n, t in case.constants.items()},
        case.options,
    )
    assert not any(
        t.is_contiguous() for t in (*loose.parameters.values(), loose.constants["valid"])
    )

    actual, expected = run(loose, backend), run(case, backend)

    # Not bitwise: torch sums strided memory in another order.
    torch.testing.assert_close(actual[0], expected[0], **FLOAT32)
    for name in expected[2]:
        torch.testing.assert_close(actual[2][name], expected[2][name], **FLOAT32)


@every_case
def test_expanded_inputs_are_honoured(backend: str, case: Case) -> None:
    flat = case.constants["advantages"][:1].expand(37)
    expanded = replace(case, constants={**case.constants, "advantages": flat})
    dense = replace(case, constants={**case.constants, "advantages": flat.contiguous()})
    assert not flat.is_contiguous()

    assert torch.equal(run(expanded, backend)[0], run(dense, backend)[0])


@every_case
def test_gradient_scales_with_a_strided_incoming_gradient(backend: str, case: Case) -> None:
    _, _, expected = run(case, backend)
    parameters = {n: t.detach().requires_grad_() for n, t in case.parameters.items()}
    loss_of = api.gaussian_ppo_loss if "mean" in parameters else api.categorical_ppo_loss
    arguments: dict[str, Any] = {**parameters, **case.constants, **case.options}
    loss, _ = loss_of(**arguments, backend=backend)
    incoming = torch.tensor([1.0, 9.0, 2.0])[::2]

    grads = torch.autograd.grad(loss.expand(2), list(parameters.values()), incoming)

    for grad, name in zip(grads, parameters, strict=True):
        torch.testing.assert_close(grad, expected[name], **FLOAT32)


@every_case
def test_int32_actions_give_the_same_bits(backend: str, case: Case) -> None:
    if "logits" not in case.parameters:
        assert case.constants["actions"].is_floating_point()
        return
    narrow = {**case.constants, "actions": case.constants["actions"].int()}

    actual, expected = run(replace(case, constants=narrow), backend), run(case, backend)

    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[2]["logits"], expected[2]["logits"])


class Dispatched(TorchDispatchMode):
    """Names of the torch operations that ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@every_case
def test_no_value_is_read_back_by_the_host(backend: str, case: Case) -> None:
    case = with_valid(case, "some")
    case = replace(case, options={**case.options, "normalizer": torch.tensor(5.0)})

    with Dispatched() as dispatched:
        run(case, backend)

    assert dispatched.names
    assert not dispatched.names & {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal"}
