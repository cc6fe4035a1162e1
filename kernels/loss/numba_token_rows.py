"""What the loss of tokens has besides the rows of every loss: weights, a reference, exact sums."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import carray, njit

from fastppo.kernels.loss.numba_rows import (
    LANES,
    LOG_PROB,
    OLD_LOG_PROB,
    PLAIN,
    POLICY_GRAD,
    REF_KL,
    REF_LOG_PROB,
    ROWS,
    SHARE,
    TERMS,
    VALUE_GRAD,
    WEIGHT,
    bounded_exp,
    clear_invalid,
    copy,
    fill,
    row_terms,
)
from fastppo.kernels.tools.numba_math import HALF, ONE, ZERO
from fastppo.kernels.tools.numba_memory import OPTIONS, SUMMING, pointer


@njit(**OPTIONS)
def load_token_rows(batch_size, given, first, count, lane):
    """The lanes SHARE, 1 where no weights are given, and REF_LOG_PROB; after `load_rows`."""
    stop = first + count
    fill(lane[SHARE], ONE)
    if given.weights:
        weights = carray(pointer(given.weights), (batch_size,), np.float32)
        copy(weights[first:stop], lane[SHARE])
        clear_invalid(lane[WEIGHT], lane[SHARE])
    if given.ref_log_probs:
        ref_log_probs = carray(pointer(given.ref_log_probs), (batch_size,), np.float32)
        copy(ref_log_probs[first:stop], lane[REF_LOG_PROB])
        clear_invalid(lane[WEIGHT], lane[REF_LOG_PROB])


@njit(**OPTIONS)
def _reference_terms(lane, estimator, kl_coef):
    """`spec.reference_kl`, and its part of the gradient."""
    for k in range(ROWS):
        weight = lane[WEIGHT, k]
        difference = (lane[LOG_PROB, k] - lane[REF_LOG_PROB, k]) if weight > ZERO else ZERO
        if estimator == 0:
            value = HALF * difference * difference
            grad = difference
        elif estimator == 1:
            inverse = bounded_exp(-difference)
            value = inverse - ONE + difference
            grad = ONE - inverse
        else:
            log_ratio = (lane[LOG_PROB, k] - lane[OLD_LOG_PROB, k]) if weight > ZERO else ZERO
            ratio = bounded_exp(log_ratio)
            constant = bounded_exp(lane[REF_LOG_PROB, k] - lane[OLD_LOG_PROB, k])
            value = constant + ratio * (difference - ONE)
            grad = ratio * difference
        lane[REF_KL, k] = weight * value
        lane[POLICY_GRAD, k] += kl_coef * grad


@njit(**OPTIONS)
def _share(lane):
    for field in range(POLICY_GRAD, VALUE_GRAD + 1):
        for k in range(ROWS):
            lane[field, k] *= lane[SHARE, k]
    for field in range(TERMS, LANES):
        for k in range(ROWS):
            lane[field, k] *= lane[SHARE, k]


@njit(**SUMMING)
def _exact_sum(values):
    """In float64: where padding stands between the rows shall change no bit."""
    total = 0.0
    for k in range(ROWS):
        total += np.float64(values[k])
    return total


@njit(**OPTIONS)
def token_losses(lane, given, sums):
    """As `row_losses`, with weights and a reference; `sums` [7]."""
    row_terms(lane, given)
    if given.ref_log_probs:
        _reference_terms(lane, given.kl_estimator, np.float32(given.kl_coef))
    else:
        fill(lane[REF_KL], ZERO)
    if given.weights:
        _share(lane)
    for s in range(PLAIN + 1):
        sums[s] += _exact_sum(lane[TERMS + s])


@njit(**OPTIONS)
def finish_tokens(sums, scale, given):
    """As `finish`, of 7."""
    loss = carray(pointer(given.loss), (1,), np.float32)
    stats = carray(pointer(given.stats), (7,), np.float32)
    for s in range(7):
        stats[s] = np.float32(sums[s] * scale)
    total = sums[0] + given.vf_coef * sums[1] - given.ent_coef * sums[2] + given.kl_coef * sums[6]
    loss[0] = np.float32(total * scale)
