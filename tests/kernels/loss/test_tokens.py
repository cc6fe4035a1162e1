"""The loss of a language model's tokens, [B, T, V], on every backend.

T1 to T4 and T9 of the specification: against float64, padding, micro-batches and ranks, scoring
twice, strides and offsets.
"""

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_batches import (
    COEFFICIENTS,
    OF_TOKENS,
    REDUCTIONS,
    assert_close,
    cut,
    double,
    draw,
    gradient_of_rank,
    oracle,
    run,
    whole_number,
)
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 15 if INTERPRETED else 60}
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


@settings(**SETTINGS)
@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 5),
    width=st.sampled_from([1, 2, 31, 129, 1500]),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    holes=st.booleans(),
    temperature=st.sampled_from([1.0, 0.7, 2.0]),
    reduction=st.sampled_from(REDUCTIONS),
    normalizer=st.sampled_from([None, 7.0, torch.tensor(9)]),
    estimator=st.sampled_from(["k2", "k3", "k3_is", None]),
    critic=st.booleans(),
)
def test_matches_float64_reference(
    backend: str,
    batch: int,
    length: int,
    width: int,
    seed: int,
    dtype: torch.dtype,
    holes: bool,
    temperature: float,
    reduction: str,
    normalizer: float | Tensor | None,
    estimator: str | None,
    critic: bool,
) -> None:
    arguments = draw(
        batch,
        length,
        width,
        seed=seed,
        dtype=dtype,
        holes=holes,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        kl_estimator=estimator or "k2",
    )
    if estimator is None:
        arguments |= {"ref_log_probs": None, "kl_coef": 0.0}
    if not critic:
        arguments |= {"new_values": None, "returns": None, "old_values": None}

    actual = run(arguments, backend)

    assert actual[2].dtype == dtype
    assert ("ref_kl" in actual[1]) == (estimator is not None)
    assert_close(actual, oracle(arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [32_001, 151_936])
def test_a_vocabulary(backend: str, width: int, dtype: torch.dtype) -> None:
    arguments = draw(1, 2, width, dtype=dtype, holes=False, kl_estimator="k3_is")

    assert_close(run(arguments, backend), oracle(arguments))


def token_terms(arguments: dict[str, Any]) -> Tensor:
    """The loss of each token, [B, T], from the formulas; of plain tokens, with an actor alone."""
    log_p = arguments["logits"].double().log_softmax(-1)
    log_prob = log_p.gather(-1, arguments["actions"][..., None])[..., 0]
    ratio = (log_prob - arguments["old_log_probs"]).exp()
    adv = arguments["advantages"].double()
    worst = torch.maximum(-adv * ratio, -adv * ratio.clamp(0.8, 1.3))
    worst = torch.where(adv < 0, torch.minimum(worst, -3.0 * adv), worst)
    entropy = -(log_p.exp() * log_p).sum(-1)
    difference = log_prob - arguments["ref_log_probs"]
    terms: Tensor = worst - 0.01 * entropy + 0.1 * 0.5 * difference**2
    return terms


@every_reduction
def test_reductions_by_hand(backend: str, reduction: str) -> None:
    """Three sequences of 3, 1 and 0 tokens, T = 4: the third is no sequence."""
    valid = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    nothing: dict[str, Any] = {"new_values": None, "returns": None, "old_values": None}
    arguments = draw(3, 4, 11, holes=False, valid=valid, reduction=reduction, **nothing)
    terms = token_terms(arguments)
    sums = [terms[n][valid[n]].sum() for n in range(2)]
    expected = {
        "token": (sums[0] + sums[1]) / 4,
        "sequence": (sums[0] / 3 + sums[1] / 1) / 2,
        "sequence_sum": (sums[0] + sums[1]) / 2,
        "constant": (sums[0] + sums[1]) / (2 * 4),
    }

    loss, _, _, _ = run(arguments, backend)

    torch.testing.assert_close(loss.double(), expected[reduction], rtol=1e-5, atol=1e-6)


@every_reduction
def test_sequence_ids_are_rows_packed(backend: str, reduction: str) -> None:
    """One row of all tokens and their ids, in any order, is the padded batch, to the bit."""
    arguments = draw(4, 5, 40, reduction=reduction, normalizer=6.0)
    valid = arguments["valid"]
    order = torch.randperm(int(valid.sum()), generator=torch.Generator().manual_seed(1))
    ids = torch.arange(4)[:, None].expand(4, 5)
    packed = {
        name: x[valid][order] if name in ("logits", *OF_TOKENS) else x
        for name, x in {**arguments, "sequence_id": ids}.items()
        if name != "valid"
    }

    actual, expected = run(packed, backend), run(arguments, backend)

    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[2], expected[2][valid][order])


@every_reduction
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_padding_changes_no_bit(backend: str, reduction: str, poison: float) -> None:
    normalizer = 12.0 if reduction == "constant" else None  # its own is the length of the row
    arguments = draw(3, 4, 33, reduction=reduction, normalizer=normalizer)
    padded = dict(arguments)
    for name in ("logits", *OF_TOKENS):
        x = arguments.get(name)
        if x is not None:
            filler = x.new_zeros(3, 2, *x.shape[2:])
            if x.is_floating_point():
                filler.fill_(poison)
            elif x.dtype == torch.int64:
                filler.fill_(10**9)
            padded[name] = torch.cat([x, filler], 1)

    actual, expected = run(padded, backend), run(arguments, backend)

    assert torch.equal(actual[0], expected[0])
    assert all(torch.equal(actual[1][name], x) for name, x in expected[1].items())
    assert torch.equal(actual[2][:, :4], expected[2])
    assert (actual[2][:, 4:] == 0.0).all()
    assert actual[3] is not None
    assert (actual[3][:, 4:] == 0.0).all()


@every_reduction
def test_the_order_of_sequences_changes_nothing(backend: str, reduction: str) -> None:
    arguments = draw(5, 3, 20, reduction=reduction)
    order = torch.tensor([3, 0, 4, 2, 1])
    moved = {n: x[order] if n in ("logits", *OF_TOKENS) else x for n, x in arguments.items()}

    actual, expected = run(moved, backend), run(arguments, backend)

    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[2], expected[2][order])


@every_reduction
@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up(backend: str, reduction: str, size: int) -> None:
    """Of any size, to the loss, the statistics and the gradient of the whole batch."""
    arguments = draw(6, 4, 25, reduction=reduction)
    expected = run(arguments, backend)
    arguments["normalizer"] = whole_number(arguments, reduction)

    parts = [run(cut(arguments, slice(at, at + size)), backend) for at in range(0, 6, size)]

    torch.testing.assert_close(sum(part[0] for part in parts), expected[0])
    for name, value in expected[1].items():
        torch.testing.assert_close(sum(part[1][name] for part in parts), value)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), expected[2])


def test_a_mean_of_means_is_something_else() -> None:
    """What the test before would find in a library that divides by each micro-batch's number."""
    arguments = draw(6, 4, 25)
    expected = run(arguments, "torch")

    parts = [run(cut(arguments, slice(at, at + 2)), "torch")[2] / 3 for at in range(0, 6, 2)]

    assert (torch.cat(parts) - expected[2]).abs().max() > 1e-3 * expected[2].abs().max()


@pytest.mark.skipif(INTERPRETED, reason="of processes, not of a kernel")
def test_two_ranks_have_the_gradient_of_one(tmp_path: Path) -> None:
    multiprocessing: Any = torch.multiprocessing  # half typed
    multiprocessing.spawn(gradient_of_rank, (str(tmp_path),), nprocs=2)

    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for reduction in REDUCTIONS:
        arguments = draw(6, 4, 25, reduction=reduction)
        scale = torch.ones(25, requires_grad=True)
        arguments["logits"] = arguments["logits"].nan_to_num() * scale
        loss, _ = api.categorical_ppo_loss(**arguments, backend="numba")
        loss.backward()
        assert scale.grad is not None
        assert torch.equal(first[reduction], second[reduction])
        torch.testing.assert_close(first[reduction], scale.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("width", [2, 31, 128, 129, 4100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scored_twice_the_ratio_is_one(backend: str, width: int, dtype: torch.dtype) -> None:
    """To the bit: no row moved, so none is clipped, and no divergence is seen."""
    arguments = draw(3, 4, width, dtype=dtype, temperature=0.8)
    scored = api.token_log_probs(
        arguments["logits"],
        arguments["actions"],
        temperature=0.8,
        valid=arguments["valid"],
        backend=backend,
    )
    arguments |= {"old_log_probs": scored, "ref_log_probs": scored, "kl_estimator": "k3"}

    _, stats, _, _ = run(arguments, backend)

    for name in ("approx_kl", "old_approx_kl", "clip_frac", "ref_kl"):
        assert stats[name] == 0.0


@pytest.mark.parametrize("holes", [False, True])
def test_all_masked_is_no_loss_and_no_gradient(backend: str, holes: bool) -> None:
    for reduction in REDUCTIONS:
        arguments = draw(2, 3, 9, holes=holes, reduction=reduction)
        arguments["valid"] = torch.zeros(2, 3, dtype=torch.bool)
        for name in ("logits", "advantages", "old_log_probs"):
            arguments[name] = torch.full_like(arguments[name], math.nan)

        loss, stats, d_logits, d_values = run(arguments, backend)

        assert loss == 0.0
        assert all(value == 0.0 for value in stats.values())
        assert (d_logits == 0.0).all()
        assert d_values is not None
        assert (d_values == 0.0).all()


@pytest.mark.parametrize("kind", ["rows apart", "transposed", "expanded", "last apart"])
def test_strides_are_honoured(backend: str, kind: str) -> None:
    arguments = draw(3, 4, 200, holes=False)
    logits = arguments["logits"]
    if kind == "rows apart":
        arguments["logits"] = torch.cat([logits, logits], 2)[..., :200]
    elif kind == "transposed":
        arguments["logits"] = logits.transpose(0, 1).contiguous().transpose(0, 1)
        arguments["advantages"] = arguments["advantages"].T.contiguous().T
    elif kind == "expanded":
        arguments["advantages"] = arguments["advantages"][:1].expand(3, 4)
    else:
        arguments["logits"] = torch.stack([logits, logits + 1.0], 3)[..., 0]

    assert_close(run(arguments, backend), oracle(arguments))


def test_an_incoming_gradient_scales(backend: str) -> None:
    """Whatever it is: expanded, or on a way through other operations."""
    arguments = draw(2, 3, 50, holes=False)
    expected = run(arguments, backend)[2]
    logits = arguments["logits"].clone().requires_grad_()

    loss, _ = api.categorical_ppo_loss(**{**arguments, "logits": logits}, backend=backend)
    (loss.expand(5) * torch.arange(5.0)).sum().backward()

    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, 10.0 * expected)


@pytest.mark.parametrize("shape", [(2, 3, 40), (2, 3, 4000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_overwrites_the_logits(
    backend: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    if backend == "torch":
        pytest.skip("refuses overwrite_logits")
    arguments = draw(*shape, dtype=dtype)
    expected = run(arguments, backend)[2]
    leaf = arguments["logits"].clone().requires_grad_()

    loss, _ = api.categorical_ppo_loss(
        **{**arguments, "logits": leaf, "overwrite_logits": True}, backend=backend
    )
    loss.backward()

    assert leaf.grad is not None
    assert torch.equal(leaf.grad, expected)
    assert torch.equal(leaf.detach(), expected)


def test_logits_that_are_no_rows_are_not_overwritten() -> None:
    arguments = draw(3, 4, 30, holes=False, overwrite_logits=True)
    arguments["logits"] = arguments["logits"].transpose(0, 1).contiguous().transpose(0, 1)

    with pytest.raises(ValueError, match=r"overwrite_logits=True: .* pass logits\.contiguous\(\)"):
        api.categorical_ppo_loss(**arguments, backend="numba")


def test_huge_log_ratios_saturate_with_a_gradient(backend: str) -> None:
    """Every estimator: finite, and not zero where the policy ran away from the reference."""
    for estimator in ("k2", "k3", "k3_is"):
        arguments = draw(1, 2, 12, holes=False, kl_estimator=estimator, ent_coef=0.0)
        arguments["logits"] = torch.zeros(1, 2, 12)
        arguments["old_log_probs"] = torch.full((1, 2), -math.log(12))
        arguments["ref_log_probs"] = torch.full((1, 2), 200.0)
        arguments["advantages"] = torch.zeros(1, 2)

        actual = run(arguments, backend)

        assert actual[1]["ref_kl"] > 1e4
        assert actual[2].isfinite().all()
        assert (actual[2].abs().amax(-1) > 1.0).all()
        assert_close(actual, oracle(arguments))


def test_plain_actions_may_have_two_sided_clips(backend: str) -> None:
    """The narrow kernels, and the Gaussian's: low and high count on their own side."""
    nothing = torch.zeros(4)
    ratios = torch.tensor([0.75, 0.85, 1.25, 1.35]).log()
    advantages = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    rows = (-ratios, advantages, nothing, nothing)
    options: dict[str, Any] = {**COEFFICIENTS, "vf_coef": 0.0, "ent_coef": 0.0, "dual_clip": None}
    half = math.log(0.5)
    discrete = api.categorical_ppo_loss(
        torch.zeros(4, 2),
        nothing,
        torch.zeros(4, dtype=torch.long),
        rows[0] + half,
        *rows[1:],
        **options,
        backend=backend,
    )
    peak = -0.5 * math.log(2 * math.pi)
    flat = torch.zeros(4, 1)
    continuous = api.gaussian_ppo_loss(
        flat, torch.zeros(1), nothing, flat, rows[0] + peak, *rows[1:], **options, backend=backend
    )

    expected = torch.tensor((0.8 + 0.85 - 1.25 - 1.3) / 4)
    for loss, stats in (discrete, continuous):
        torch.testing.assert_close(loss, expected)
        assert stats["clip_frac"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: expected a finite number > 0"),
        ({"temperature": math.nan}, "temperature=nan: expected a finite number > 0"),
        ({"reduction": "mean"}, "reduction='mean': expected one of token, sequence, "),
        ({"clip_coef": (0.2, -0.1)}, "clip_coef=(0.2, -0.1): expected (low, high), finite"),
        ({"clip_coef": (0.2,)}, "clip_coef=(0.2,): expected (low, high), finite numbers >= 0"),
        ({"kl_estimator": "k1"}, "kl_estimator='k1': expected one of k2, k3, k3_is; k1 has no"),
        ({"kl_coef": math.inf}, "kl_coef=inf: expected a finite number"),
        ({"ref_log_probs": None}, "kl_coef=0.1: needs ref_log_probs, which is missing"),
        (
            {"norm_adv": True, "normalizer": 8.0},
            "norm_adv=True with a normalizer: mean and spread would be those of a micro-batch; "
            "pass norm_adv=False and whiten()",
        ),
        ({"nvec": (2, 3)}, "nvec=(2, 3): a token is one choice"),
        ({"actions": torch.zeros(2, 4).long()}, "actions has shape [2, 4]: expected [2, 3]"),
        ({"advantages": torch.zeros(2, 2)}, "advantages has shape [2, 2]: expected [2, 3]"),
        ({"valid": torch.ones(6).bool()}, "valid has shape [6]: expected [2, 3]"),
        ({"sequence_id": torch.zeros(2).long(), "reduction": "sequence"}, "sequence_id has shape"),
        (
            {"sequence_id": torch.full((2, 3), 6), "reduction": "sequence"},
            "sequence_id: 6 is out of range: expected 0 to 5",
        ),
        (
            {"sequence_id": torch.zeros(2, 3).long(), "reduction": "constant"},
            "reduction='constant' with sequence_id: no length is known",
        ),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    arguments = draw(2, 3, 7, holes=False, **changes)

    with pytest.raises(ValueError, match=re.escape(message)):
        api.categorical_ppo_loss(**arguments)


@pytest.mark.parametrize("name", ["returns", "old_values", "advantages"])
def test_a_missing_tensor_is_named(name: str) -> None:
    arguments = draw(2, 3, 7, holes=False) | {name: None}

    with pytest.raises(ValueError, match=f"{name} is missing: expected a tensor of shape"):
        api.categorical_ppo_loss(**arguments)


@pytest.mark.parametrize("reduction", REDUCTIONS[1:])
def test_a_reduction_over_sequences_needs_to_know_them(reduction: str) -> None:
    arguments = draw(2, 3, 7, holes=False)
    flat = {n: x.flatten(0, 1) if n in ("logits", *OF_TOKENS) else x for n, x in arguments.items()}

    with pytest.raises(ValueError, match=f"reduction='{reduction}': nothing says which token"):
        api.categorical_ppo_loss(**flat, reduction=reduction)


@pytest.mark.parametrize("token", [-1, 7, -100])
def test_a_token_outside_the_vocabulary_is_named(backend: str, token: int) -> None:
    arguments = draw(2, 3, 7, holes=False)
    arguments["actions"][1, 2] = token

    with pytest.raises(ValueError, match=rf"actions: token {token} at \[1, 2\] is outside the voc"):
        api.categorical_ppo_loss(**arguments, backend=backend)
    arguments["valid"] = torch.ones(2, 3, dtype=torch.bool)
    arguments["valid"][1, 2] = False
    loss, _ = api.categorical_ppo_loss(**arguments, backend=backend)

    assert loss.isfinite()


def test_the_operation_keeps_its_contract(backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch.compile traces through the reference: there is no operation")
    from fastppo.kernels.loss.computed import flat
    from fastppo.kernels.loss.terms import Rows, Terms

    arguments = draw(1, 5, 9, holes=False)
    logits, values, actions, *old = (arguments[name][0] for name in ("logits", *OF_TOKENS[:6]))
    rows = Rows(old[0], old[1], old[2], old[3], None)
    terms = flat(rows, Terms(0.2, 0.3, 0.5, 0.01, None, 3.0, False, torch.tensor(5.0)))
    extras = (0.9, torch.full((5,), 0.5), arguments["ref_log_probs"][0], 0.1, "k3_is")

    torch.library.opcheck(
        torch.ops.fastppo.token_ppo_loss.default,
        (backend, logits.requires_grad_(), values.requires_grad_(), actions, None, *terms, *extras),
    )


@every_reduction
def test_compiles_into_one_graph(backend: str, reduction: str) -> None:
    arguments = draw(2, 3, 40, reduction=reduction, kl_estimator="k3_is")
    logits = arguments.pop("logits").nan_to_num().requires_grad_()

    def loss_of(logits: Tensor) -> Tensor:
        return api.categorical_ppo_loss(logits, **arguments, backend=backend)[0]

    compiled: Any = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss_of(logits), logits)[0]

    actual = torch.autograd.grad(compiled(logits), logits)[0]

    torch.testing.assert_close(actual, expected)


def test_double_is_the_reference() -> None:
    arguments = double(draw(2, 3, 5))

    assert torch.equal(run(arguments, "auto")[2], run(arguments, "torch")[2])
