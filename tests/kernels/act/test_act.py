"""Acting on every backend: the float64 oracle, the distribution, and what keys a draw."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 8 if INTERPRETED else 40}
FLOAT32: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
DRAWS = 2000 if INTERPRETED else 20_000
Acted = tuple[Tensor, Tensor, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def oracle_categorical(logits: Tensor, step: Tensor | int, **arguments: Any) -> Acted:
    arguments["backend"] = "torch"
    expected: Acted = api.act_categorical(logits.double(), step, **arguments)
    return expected


def assert_close(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e.double(), **FLOAT32, equal_nan=True)


@st.composite
def counters(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "key": draw(st.integers(0, 2**64 - 1)),
        "step": draw(st.one_of(st.integers(0, 1000), st.integers(0, 2**63 - 1))),
        "first_env": draw(st.sampled_from([0, 1, 5, 2**31 - 3, 2**32 - 64])),
    }


@settings(**SETTINGS)
@given(
    rows=st.integers(1, 40),
    nvec=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    counter=counters(),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_categorical_matches_float64_reference(
    backend: str, rows: int, nvec: list[int], counter: dict[str, Any], masked: bool, seed: int
) -> None:
    logits = 3.0 * normal(rows, sum(nvec), seed=seed)
    if masked:
        counter["action_mask"] = normal(rows, sum(nvec), seed=seed + 1) > -0.5
    if len(nvec) > 1:
        counter["nvec"] = nvec

    actual = api.act_categorical(logits, **counter, backend=backend)

    assert actual[0].shape == (rows, len(nvec)) if len(nvec) > 1 else (rows,)
    assert [t.dtype for t in actual] == [torch.int64, torch.float32, torch.float32]
    assert_close(actual, oracle_categorical(logits, **counter))


@settings(**SETTINGS)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 20),
    shared=st.booleans(),
    counter=counters(),
    seed=st.integers(0, 2**31),
)
def test_gaussian_matches_float64_reference(
    backend: str, rows: int, width: int, shared: bool, counter: dict[str, Any], seed: int
) -> None:
    mean = normal(rows, width, seed=seed)
    log_std = 0.5 * normal(*(() if shared else (rows,)), width, seed=seed + 1)

    actual = api.act_gaussian(mean, log_std, **counter, backend=backend)

    expected = api.act_gaussian(mean.double(), log_std.double(), **counter, backend="torch")
    assert actual[0].shape == (rows, width)
    # the log-probability is that of the action as rounded: steep where std is small
    torch.testing.assert_close(actual[0].double(), expected[0], **FLOAT32)
    torch.testing.assert_close(actual[1].double(), expected[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actual[2].double(), expected[2], **FLOAT32)


@pytest.mark.parametrize("width", [1023, 1024, 1025, 2500])
def test_many_actions_match_float64_reference(backend: str, width: int) -> None:
    logits = 3.0 * normal(2, width)
    logits[0, :1100] = -math.inf  # a whole tile without a number, except in the narrowest
    logits[0, width - 1] = 0.0
    action_mask = normal(2, width, seed=1) > 1.0
    action_mask[0, -1] = True

    for mask in (None, action_mask):
        arguments: dict[str, Any] = {"key": 3, "action_mask": mask}
        actual = api.act_categorical(logits, 9, **arguments, backend=backend)
        assert_close(actual, oracle_categorical(logits, 9, **arguments))

    mean, log_std = normal(2, width), 0.1 * normal(width, seed=2)
    actual = api.act_gaussian(mean, log_std, 9, key=3, backend=backend)
    expected = api.act_gaussian(mean.double(), log_std.double(), 9, key=3, backend="torch")
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-5, atol=1e-5 if a.ndim == 2 else 1e-2)


def uniforms_by_hand(env: int, step: int, key: int, count: int) -> list[float]:
    """Philox-4x32-10 in Python's integers, as the paper's figure has it."""
    mask = 2**32 - 1
    numbers: list[float] = []
    for block in range(-(-count // 4)):
        c = [env, step & mask, step >> 32, block]
        k = [key & mask, key >> 32]
        for _ in range(10):
            a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
            k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
        numbers += [((word >> 9) + 0.5) / 2**23 for word in c]
    return numbers[:count]


@pytest.mark.parametrize(
    ("env", "step", "key"),
    [
        (0, 0, 0),
        (2**32 - 1, 2**63 - 1, 2**64 - 1),
        (0x243F6A88, 0x13198A2E_85A308D3, 0x299F31D0_A4093822),
    ],
)
def test_actions_show_the_numbers_of_philox_in_their_order(
    backend: str, env: int, step: int, key: int
) -> None:
    """A mean of 0 and log_std of 0 shows the normals; logits of equal size show the order of the
    uniform numbers: the action is the place of the largest."""
    numbers = uniforms_by_hand(env, step, key, 12)
    counter: dict[str, Any] = {"key": key, "env_ids": torch.tensor([env]), "backend": backend}

    for width in range(1, 13):
        action = api.act_categorical(torch.zeros(1, width), step, **counter)[0]
        assert action.item() == int(np.argmax(numbers[:width]))
    for width in range(1, 6):
        pairs = (width + 1) // 2
        n = [
            math.sqrt(-2.0 * math.log(numbers[j])) * trig(2.0 * math.pi * numbers[pairs + j])
            for trig in (math.cos, math.sin)
            for j in range(pairs)
        ]
        zeros = torch.zeros(1, width)
        actual = api.act_gaussian(zeros, zeros[0], step, **counter)[0]
        torch.testing.assert_close(actual, torch.tensor([n[:width]]), rtol=0.0, atol=2e-6)


def test_hand_worked_log_prob_and_entropy(backend: str) -> None:
    """p = (1/4, 3/4): H = ln 4 - 3/4 ln 3. std = 1: log pi = -n^2 / 2 - ln(2 pi) / 2."""
    logits = torch.tensor([[0.0, math.log(3.0)]]).repeat(16, 1)

    actions, log_probs, entropy = api.act_categorical(logits, 0, key=1, backend=backend)

    assert set(actions.tolist()) == {0, 1}
    p = torch.where(actions == 0, 0.25, 0.75)
    torch.testing.assert_close(log_probs, p.log())
    expected = math.log(4.0) - 0.75 * math.log(3.0)
    torch.testing.assert_close(entropy, torch.full((16,), expected))

    zeros = torch.zeros(16, 1)
    actions, log_probs, entropy = api.act_gaussian(zeros, zeros[0], 0, key=1, backend=backend)

    half_log_2pi = 0.5 * math.log(2.0 * math.pi)
    torch.testing.assert_close(log_probs, -0.5 * actions[:, 0].square() - half_log_2pi)
    torch.testing.assert_close(entropy, torch.full((16,), 0.5 + half_log_2pi))


def test_choices_come_as_often_as_their_probability_says(backend: str) -> None:
    z = torch.tensor([0.0, 1.0, -1.0, 0.5, -math.inf, 2.0, 0.3])

    actions = api.act_categorical(z.expand(DRAWS, 7), 4, key=11, backend=backend)[0]

    observed = torch.bincount(actions, minlength=7)
    expected = torch.softmax(z.double(), 0) * DRAWS
    some = [0, 1, 2, 3, 5, 6]
    assert observed[4] == 0
    assert stats.chisquare(observed[some], expected[some]).pvalue > 1e-3


def test_heads_are_drawn_independently(backend: str) -> None:
    logits = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.7]).expand(DRAWS, 5)

    actions = api.act_categorical(logits, 4, key=12, nvec=(3, 2), backend=backend)[0]

    pairs = torch.bincount(2 * actions[:, 0] + actions[:, 1], minlength=6).view(3, 2)
    assert stats.chi2_contingency(pairs.numpy()).pvalue > 1e-3


def test_components_are_independent_standard_normals(backend: str) -> None:
    zeros = torch.zeros(DRAWS // 4, 5)

    actions = api.act_gaussian(zeros, zeros[0], 4, key=13, backend=backend)[0]

    for component in actions.unbind(1):
        assert stats.kstest(component.numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(actions.T) - torch.eye(5)
    assert correlation.abs().max() < 4.5 / math.sqrt(len(actions))


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_draws_depend_on_environment_and_step_not_on_the_split(backend: str, kind: str) -> None:
    """One process of 8 environments, two of 4, and rows in any order: the same bits."""
    outputs = normal(8, 5)

    def act(rows: Tensor, step: Tensor | int, **counter: Any) -> Acted:
        counter |= {"key": 77, "backend": backend}
        acted: Acted
        if kind == "gaussian":
            acted = api.act_gaussian(outputs[rows], outputs[0], step, **counter)
        else:
            acted = api.act_categorical(outputs[rows], step, **counter)
        return acted

    everyone = torch.arange(8)
    whole = act(everyone, 5)
    halves = [act(everyone[s : s + 4], 5, first_env=s) for s in (0, 4)]
    order = torch.tensor([3, 7, 0, 0, 5])
    some = act(order, torch.tensor(5), env_ids=order)
    later = act(everyone, 5 + 2**32)

    for w, first, second, s in zip(whole, *halves, some, strict=True):
        assert torch.equal(w, torch.cat([first, second]))
        assert torch.equal(w[order], s)
    assert not torch.equal(whole[0], later[0])


def test_step_tensor_is_read_at_every_call(backend: str) -> None:
    step = torch.zeros((), dtype=torch.int64)
    logits = torch.zeros(16, 6)

    drawn = []
    for t in range(3):
        drawn.append(api.act_categorical(logits, step, key=1, backend=backend))
        expected = api.act_categorical(logits, t, key=1, backend=backend)
        assert all(torch.equal(a, e) for a, e in zip(drawn[-1], expected, strict=True))
        step += 1

    assert not torch.equal(drawn[0][0], drawn[1][0])


@pytest.mark.parametrize("with_entropy", [True, False])
def test_out_is_row_t_of_a_buffer_and_nothing_beside_it(backend: str, with_entropy: bool) -> None:
    logits = normal(5, 7)
    buffers = [
        torch.full((3, 5, 2), -9),
        torch.full((3, 5), -9.0),
        torch.full((3, 5), -9.0),
    ][: 3 if with_entropy else 2]
    out: Any = tuple(buffer[1] for buffer in buffers)

    returned = api.act_categorical(logits, 2, key=5, nvec=(3, 4), out=out, backend=backend)

    expected = api.act_categorical(logits, 2, key=5, nvec=(3, 4), backend=backend)
    assert returned is out
    for buffer, e in zip(buffers, expected, strict=False):
        assert torch.equal(buffer[1], e)
        assert (buffer[[0, 2]] == -9).all()


def test_gaussian_out_is_row_t_of_a_buffer(backend: str) -> None:
    mean, log_std = normal(5, 3), normal(3, seed=1)
    actions, log_probs = torch.full((3, 5, 3), -9.0), torch.full((3, 5), -9.0)

    api.act_gaussian(mean, log_std, 2, key=5, out=(actions[1], log_probs[1]), backend=backend)

    expected = api.act_gaussian(mean, log_std, 2, key=5, backend=backend)
    for buffer, e in zip((actions, log_probs), expected, strict=False):
        assert torch.equal(buffer[1], e)
        assert (buffer[[0, 2]] == -9.0).all()


@pytest.mark.parametrize("nvec", [None, (3, 6)])
def test_the_loss_finds_the_log_prob_that_was_kept(backend: str, nvec: Any) -> None:
    """Ratios on fresh data are 1: old_approx_kl is the mean of -log ratio, one row at a time."""
    rows = 4 if INTERPRETED else 50
    logits = 2.0 * normal(rows, 9)
    actions, log_probs, _ = api.act_categorical(logits, 8, key=2, nvec=nvec, backend=backend)
    for i in range(rows):
        row = slice(i, i + 1)
        rest = (torch.zeros(1), torch.ones(1), torch.ones(1), torch.zeros(1))
        _, found = api.categorical_ppo_loss(
            logits[row], rest[0], actions[row], log_probs[row], *rest[1:], nvec=nvec,
            clip_coef=0.2, vf_coef=0.5, ent_coef=0.0, backend=backend,
        )  # fmt: skip
        assert abs(found["old_approx_kl"].item()) <= 1e-6


@pytest.mark.parametrize("width", [1, 6, 17])
def test_the_gaussian_loss_finds_the_log_prob_that_was_kept(backend: str, width: int) -> None:
    rows = 4 if INTERPRETED else 50
    mean, log_std = normal(rows, width), 0.5 * normal(width, seed=1) - 0.5
    actions, log_probs, _ = api.act_gaussian(mean, log_std, 8, key=2, backend=backend)
    for i in range(rows):
        row = slice(i, i + 1)
        rest = (torch.zeros(1), torch.ones(1), torch.ones(1), torch.zeros(1))
        _, found = api.gaussian_ppo_loss(
            mean[row], log_std, rest[0], actions[row], log_probs[row], *rest[1:],
            clip_coef=0.2, vf_coef=0.5, ent_coef=0.0, backend=backend,
        )  # fmt: skip
        # two roundings of a sum of this size, where that is more
        allowed = max(1e-6, 2.0**-22 * abs(log_probs[i].item()))
        assert abs(found["old_approx_kl"].item()) <= allowed


def test_logits_without_a_softmax(backend: str) -> None:
    """The defined answer to what a diverged policy or a wrong mask hands over."""
    nan, inf = math.nan, math.inf
    logits = torch.tensor(
        [
            [-inf, -inf, -inf],
            [nan, nan, nan],
            [nan, 0.0, -inf],
            [0.0, nan, 1e30],
            [0.0, inf, inf],
        ]
    )

    actions, log_probs, entropy = api.act_categorical(logits, 0, key=1, backend=backend)

    assert actions.tolist() == [0, 0, 1, 2, 1]
    assert log_probs.isnan().all()
    assert entropy.isnan().all()


def test_masked_logits_are_not_read_into_anything(backend: str) -> None:
    logits = normal(6, 5)
    action_mask = normal(6, 5, seed=2) > 0.0
    action_mask[:, 3] = True
    action_mask[5] = False
    arguments: dict[str, Any] = {"key": 1, "action_mask": action_mask, "backend": backend}
    clean = api.act_categorical(logits, 0, **arguments)
    logits[~action_mask] = math.nan

    poisoned = api.act_categorical(logits, 0, **arguments)

    for a, e in zip(poisoned, clean, strict=True):
        torch.testing.assert_close(a, e, rtol=0.0, atol=0.0, equal_nan=True)
    assert action_mask[:5].gather(1, poisoned[0][:5, None]).all()
    assert poisoned[0][5] == 0
    assert poisoned[1].isnan().tolist() == [False] * 5 + [True]


def test_a_single_action_is_certain(backend: str) -> None:
    actions, log_probs, entropy = api.act_categorical(normal(3, 1), 0, key=1, backend=backend)

    assert actions.tolist() == [0, 0, 0]
    assert log_probs.tolist() == entropy.tolist() == [0.0, 0.0, 0.0]


def test_extreme_logits_stay_finite(backend: str) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 3e38, 0.0]])

    actions, log_probs, entropy = api.act_categorical(logits, 0, key=1, backend=backend)

    assert actions.tolist() == [0, 1]
    assert log_probs.tolist() == [0.0, 0.0]
    assert entropy.tolist() == [0.0, 0.0]


def test_nan_mean_shows_in_its_row_only(backend: str) -> None:
    mean = torch.zeros(3, 2)
    mean[1, 0] = math.nan

    actions, log_probs, entropy = api.act_gaussian(mean, mean[0], 0, key=1, backend=backend)

    assert actions.isnan().tolist() == [[False, False], [True, False], [False, False]]
    assert log_probs.isnan().tolist() == [False, True, False]
    assert entropy.isfinite().all()


def test_bfloat16_outputs_are_computed_on_in_float32(backend: str) -> None:
    outputs = normal(9, 6).bfloat16()
    log_std = normal(6, seed=1).bfloat16().float()

    actual = api.act_categorical(outputs, 3, key=6, backend=backend)
    expected = api.act_categorical(outputs.float(), 3, key=6, backend=backend)
    gaussian = api.act_gaussian(outputs, log_std, 3, key=6, backend=backend)
    gaussian_too = api.act_gaussian(outputs, log_std.bfloat16(), 3, key=6, backend=backend)
    expected_too = api.act_gaussian(outputs.float(), log_std, 3, key=6, backend=backend)

    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    for g, h, e in zip(gaussian, gaussian_too, expected_too, strict=True):
        assert torch.equal(g, e)
        assert torch.equal(h, e)


def test_strided_inputs_are_honoured(backend: str) -> None:
    logits = normal(6, 5)
    wide = torch.cat([logits, logits + 9.0], 1)[:, :5]
    action_mask = (normal(5, 6, seed=1) > -1.0).T
    env_ids = torch.arange(12)[::2]
    step = torch.arange(6)[3]
    assert not any(t.is_contiguous() for t in (wide, action_mask, env_ids))
    arguments: dict[str, Any] = {"key": 4, "backend": backend}

    actual = api.act_categorical(wide, step, env_ids=env_ids, action_mask=action_mask, **arguments)
    expected = api.act_categorical(
        logits, 3, env_ids=env_ids.clone(), action_mask=action_mask.contiguous(), **arguments
    )
    gaussian = api.act_gaussian(wide, action_mask.float(), step, env_ids=env_ids, **arguments)
    gaussian_too = api.act_gaussian(
        logits, action_mask.float().contiguous(), 3, env_ids=env_ids.clone(), **arguments
    )

    for a, e in zip(actual + gaussian, expected + gaussian_too, strict=True):
        assert torch.equal(a, e)


def test_same_input_gives_the_same_bits(backend: str) -> None:
    outputs = normal(50, 7)

    first, second = (
        (
            *api.act_categorical(outputs, 0, key=1, backend=backend),
            *api.act_gaussian(outputs, outputs[0], 0, key=1, backend=backend),
        )
        for _ in range(2)
    )

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_results_carry_no_graph(backend: str) -> None:
    outputs = normal(3, 4).requires_grad_()

    acted = api.act_categorical(outputs, 0, key=1, backend=backend)
    gaussian = api.act_gaussian(outputs, outputs[0], 0, key=1, backend=backend)

    assert not any(t.requires_grad for t in (*acted, *gaussian))
