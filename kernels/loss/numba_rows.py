"""What the numba losses share: advantages to scales, the rows' own losses, their sums to stats.

ROWS rows at a time are columns of a tile `lane`, so that every loop here runs over rows and fills
whole SIMD registers. Invalid rows, and the rows that pad the last tile, enter as zeros of weight
zero. Statistics add up in float32 within a tile, in float64 over tiles. One thread does it all: a
second one won nothing at any size, as torch keeps its own threads spinning (docs/performance.md).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: no-check-untyped-defs

import math
from typing import NamedTuple

import numpy as np
from numba import carray, njit
from torch import Tensor

from fastppo.kernels.loss.spec import STATS
from fastppo.kernels.loss.terms import KL_ESTIMATORS, LOG_RATIO_MAX, Rows, Terms, Tokens
from fastppo.kernels.tools.numba_math import HALF, ONE, ZERO, exp
from fastppo.kernels.tools.numba_memory import OPTIONS, SUMMING, address, dense, empty, pointer

ROWS = 128
_LOG_RATIO_MAX = np.float32(LOG_RATIO_MAX)


class LossRows(NamedTuple):
    """The last argument of every loss kernel: addresses of rows and results, and the terms."""

    old_log_probs: int  # this and the next four: [B] f32
    advantages: int
    returns: int
    old_values: int
    new_values: int
    valid: int  # [B] bool, or 0 for all
    given_stats: int  # [4] f32 from advantage_stats, or 0
    norm_adv: bool
    normalizer: float  # below 0: the number of valid rows
    clip_low: float
    clip_high: float
    vf_coef: float
    ent_coef: float
    clip_vloss: float  # below 0: off
    dual_clip: float  # inf: off
    d_values: int  # [B] f32, written
    loss: int  # [] f32, written
    stats: int  # [6] f32, written; [7] by the kernel of vocabularies, which alone serves the rest
    weights: int  # [B] f32, or 0 for 1
    ref_log_probs: int  # [B] f32, or 0
    kl_coef: float
    kl_estimator: int  # index into KL_ESTIMATORS


@njit(**SUMMING)
def _count(valid):
    count = 0
    for i in range(valid.shape[0]):
        count += np.int64(valid[i])
    return count


@njit(**SUMMING)
def _mean_and_deviation(advantages, valid, everywhere, count):
    total = 0.0
    squares = 0.0
    if everywhere:
        for i in range(advantages.shape[0]):
            total += np.float64(advantages[i])
        mean = total / count
        for i in range(advantages.shape[0]):
            centred = np.float64(advantages[i]) - mean
            squares += centred * centred
    else:
        for i in range(advantages.shape[0]):
            total += np.float64(advantages[i] if valid[i] else ZERO)
        mean = total / count
        for i in range(advantages.shape[0]):
            centred = np.float64(advantages[i]) - mean
            squares += centred * centred if valid[i] else 0.0
    return mean, math.sqrt(squares / (count - 1))


@njit(**OPTIONS)
def compute_scales(arrays, given):
    """Mean of the advantages, 1 / (their std + 1e-8), 1 / divisor."""
    _, advantages, _, _, _, valid = arrays
    mean, rstd = 0.0, 1.0
    everywhere = valid.shape[0] == 0
    if given.given_stats:
        stats = carray(pointer(given.given_stats), (4,), np.float32)
        count = np.int64(stats[3])
        if given.norm_adv:
            mean, rstd = np.float64(stats[0]) + np.float64(stats[1]), np.float64(stats[2])
    else:
        count = advantages.shape[0] if everywhere else _count(valid)
        if given.norm_adv and count > 1:
            mean, std = _mean_and_deviation(advantages, valid, everywhere, count)
            rstd = 1.0 / (std + 1e-8)
    scale = 0.0
    if count > 0:
        scale = 1.0 / (count if given.normalizer < 0.0 else given.normalizer)
    return mean, rstd, scale


# Rows of the tile `lane` [LANES, ROWS]: what a row's loss needs, then what it yields.
WEIGHT, OLD_LOG_PROB, ADVANTAGE, RETURN, OLD_VALUE, NEW_VALUE = range(6)
LOG_PROB, ENTROPY, POLICY_GRAD, VALUE_GRAD = range(6, 10)
SHARE, REF_LOG_PROB = 10, 11
TERMS = 12
REF_KL = TERMS + len(STATS)
LANES = REF_KL + 1
PLAIN = len(STATS)
"""Sums of a loss without REF_KL."""


# The loops below are functions of their own and get slices: LLVM then sees that no index is
# negative and checks once per call that the arrays do not overlap; inlined, it gives up.
# numba's `out[:] = values` goes element by element, at four times the price of these
@njit(**OPTIONS)
def copy(values, out):
    for k in range(values.shape[0]):
        out[k] = values[k]


@njit(**OPTIONS)
def fill(out, value):
    for k in range(out.shape[0]):
        out[k] = value


@njit(**OPTIONS)
def _normalize(advantages, mean, rstd, lane):
    for k in range(advantages.shape[0]):
        lane[k] = np.float32((np.float64(advantages[k]) - mean) * rstd)


@njit(**OPTIONS)
def _weigh(valid, weight):
    for k in range(valid.shape[0]):
        weight[k] = ONE if valid[k] else ZERO


@njit(**OPTIONS)
def clear_invalid(weight, values):
    """Zeros where the weight is zero, whatever stood there."""
    for k in range(ROWS):
        values[k] = values[k] if weight[k] > ZERO else ZERO


@njit(**OPTIONS)
def row_arrays(batch_size, given):
    """The addresses of a loss's rows as arrays, for `load_rows`; valid [0] for address 0."""
    return (
        carray(pointer(given.old_log_probs), (batch_size,), np.float32),
        carray(pointer(given.advantages), (batch_size,), np.float32),
        carray(pointer(given.returns), (batch_size,), np.float32),
        carray(pointer(given.old_values), (batch_size,), np.float32),
        carray(pointer(given.new_values), (batch_size,), np.float32),
        carray(pointer(given.valid), (batch_size if given.valid else 0,), np.bool_),
    )


@njit(**OPTIONS)
def load_rows(arrays, first, count, mean, rstd, lane):
    """Fills `lane` with rows first .. first + count; zeros behind them and where not valid."""
    old_log_probs, advantages, returns, old_values, new_values, valid = arrays
    stop = first + count
    if count < ROWS:
        lane[:, :] = ZERO
    fill(lane[WEIGHT, :count], ONE)
    copy(old_log_probs[first:stop], lane[OLD_LOG_PROB])
    _normalize(advantages[first:stop], mean, rstd, lane[ADVANTAGE])
    copy(returns[first:stop], lane[RETURN])
    copy(old_values[first:stop], lane[OLD_VALUE])
    copy(new_values[first:stop], lane[NEW_VALUE])
    if valid.shape[0] > 0:
        _weigh(valid[first:stop], lane[WEIGHT])
        for field in range(OLD_LOG_PROB, NEW_VALUE + 1):
            clear_invalid(lane[WEIGHT], lane[field])


@njit(inline="always", **OPTIONS)
def bounded_exp(log_ratio):
    """e**log_ratio, at most e**LOG_RATIO_MAX."""
    # inf - inf: what is infinite was so in the inputs, and must show in the loss
    bound = _LOG_RATIO_MAX + (log_ratio - log_ratio)
    return exp(bound if log_ratio > _LOG_RATIO_MAX else log_ratio)


@njit(**OPTIONS)
def _policy_terms(lane, low, high, middle, reach, dual_clip):
    for k in range(ROWS):
        weight = lane[WEIGHT, k]
        advantage = lane[ADVANTAGE, k]
        log_ratio = (lane[LOG_PROB, k] - lane[OLD_LOG_PROB, k]) if weight > ZERO else ZERO
        ratio = bounded_exp(log_ratio)
        outside = ratio < low or ratio > high
        clipped = low if ratio < low else (high if ratio > high else ratio)
        unclipped_loss = -advantage * ratio
        clipped_loss = -advantage * clipped
        policy = clipped_loss if clipped_loss > unclipped_loss else unclipped_loss
        # At a tie torch.maximum and minimum send half of the gradient to either side.
        tie = HALF * unclipped_loss if unclipped_loss == clipped_loss else ZERO
        grad = tie if outside and not unclipped_loss > clipped_loss else unclipped_loss
        worst = -dual_clip * advantage
        bounded = advantage < ZERO and policy >= worst
        bounded_grad = HALF * grad if policy == worst else ZERO
        lane[POLICY_GRAD, k] = bounded_grad if bounded else grad
        lane[TERMS, k] = weight * (worst if bounded else policy)
        lane[TERMS + 2, k] = weight * lane[ENTROPY, k]
        lane[TERMS + 3, k] = (ratio - ONE) - log_ratio
        lane[TERMS + 4, k] = -log_ratio
        lane[TERMS + 5, k] = weight if abs(ratio - middle) > reach else ZERO


@njit(**OPTIONS)
def _value_terms(lane):
    for k in range(ROWS):
        error = lane[NEW_VALUE, k] - lane[RETURN, k]
        lane[VALUE_GRAD, k] = error
        lane[TERMS + 1, k] = lane[WEIGHT, k] * HALF * (error * error)


@njit(**OPTIONS)
def _clipped_value_terms(lane, near):
    for k in range(ROWS):
        error = lane[NEW_VALUE, k] - lane[RETURN, k]
        value = error * error
        step = lane[NEW_VALUE, k] - lane[OLD_VALUE, k]
        far = step < -near or step > near
        step = -near if step < -near else (near if step > near else step)
        near_error = lane[OLD_VALUE, k] + step - lane[RETURN, k]
        near_value = near_error * near_error
        near_grad = ZERO if far else near_error
        tie = HALF * (error + near_grad)
        grad = tie if near_value == value else error
        lane[VALUE_GRAD, k] = near_grad if near_value > value else grad
        larger = near_value if near_value > value else value
        lane[TERMS + 1, k] = lane[WEIGHT, k] * HALF * larger


@njit(**OPTIONS)
def scaled(values, factor, out):
    """The first values times a factor, as many as fit."""
    for k in range(out.shape[0]):
        out[k] = factor * values[k]


@njit(**SUMMING)
def _lane_sum(values):
    total = ZERO
    for k in range(ROWS):
        total += values[k]
    return np.float64(total)


@njit(**OPTIONS)
def row_terms(lane, given):
    """Writes the rows' terms, d/d log_prob and d/d value to `lane`.

    Comparisons are written so that NaN takes the branch that keeps it.
    """
    low, high = np.float32(1.0 - given.clip_low), np.float32(1.0 + given.clip_high)
    middle = np.float32(1.0 + 0.5 * (given.clip_high - given.clip_low))
    reach = np.float32(0.5 * (given.clip_low + given.clip_high))
    _policy_terms(lane, low, high, middle, reach, np.float32(given.dual_clip))
    if given.clip_vloss >= 0.0:
        _clipped_value_terms(lane, np.float32(given.clip_vloss))
    else:
        _value_terms(lane)


@njit(**OPTIONS)
def row_losses(lane, given, sums):
    """Adds the rows' terms to `sums` [6]; leaves d/d log_prob and d/d value in `lane`."""
    row_terms(lane, given)
    for s in range(PLAIN):
        sums[s] += _lane_sum(lane[TERMS + s])


@njit(**OPTIONS)
def finish(sums, scale, given):
    """The sums over all rows [6] to the loss, [] f32, and STATS, [6] f32."""
    loss = carray(pointer(given.loss), (1,), np.float32)
    stats = carray(pointer(given.stats), (6,), np.float32)
    for s in range(6):
        stats[s] = np.float32(sums[s] * scale)
    loss[0] = np.float32((sums[0] + given.vf_coef * sums[1] - given.ent_coef * sums[2]) * scale)


_PLAIN_TOKENS = Tokens()


class RowArguments:
    """The rows of one loss as its kernel takes them, and the outputs that all losses have."""

    def __init__(
        self, rows: Rows, new_values: Tensor, terms: Terms, tokens: Tokens | None = None
    ) -> None:
        normalizer = terms.normalizer
        if normalizer is None:
            normalizer = -1.0
        elif isinstance(normalizer, Tensor):
            normalizer = float(normalizer.detach().double().numpy())
        self.d_values = empty(len(new_values))
        self.loss = empty()
        self.stats = empty(len(STATS) if tokens is None else len(STATS) + 1)
        tokens = tokens or _PLAIN_TOKENS
        # held here: an address does not keep its tensor alive
        inputs = (*rows, new_values, tokens.weights, tokens.ref_log_probs)
        self._inputs = [None if t is None else dense(t) for t in inputs]
        addresses = [address(t) for t in self._inputs]
        old_log_probs, advantages, returns, old_values, valid, stats, values = addresses[:7]
        weights, ref_log_probs = addresses[7:]
        self.for_kernel = LossRows(
            old_log_probs,
            advantages,
            returns,
            old_values,
            values,
            valid,
            stats,
            bool(terms.norm_adv),
            float(normalizer),
            float(terms.clip_low),
            float(terms.clip_high),
            float(terms.vf_coef),
            float(terms.ent_coef),
            -1.0 if terms.clip_vloss is None else float(terms.clip_vloss),
            math.inf if terms.dual_clip is None else float(terms.dual_clip),
            self.d_values.data_ptr(),
            self.loss.data_ptr(),
            self.stats.data_ptr(),
            weights,
            ref_log_probs,
            float(tokens.kl_coef),
            KL_ESTIMATORS.index(tokens.kl_estimator),
        )
