"""A small actor-critic on the CPU in two calls: one that acts, one that is a whole PPO update.

A minibatch of a 64-64 network takes a fraction of a millisecond to compute, and as long again to
tell torch what to compute. Here nothing is told: loss, draw, clip and Adam are the kernels of this
package, the network is that of `numba_layers`, which says what a table of layers is. Parameters,
gradients and Adam's moments are the flat buffers that torch's modules view.
"""

import numpy as np
from numba import carray, njit

from fastppo.kernels.act.numba_cpu import categorical_kernel as draw_categorical
from fastppo.kernels.act.numba_cpu import gaussian_kernel as draw_gaussian
from fastppo.kernels.adam.numba_cpu import clip_adam_kernel
from fastppo.kernels.loss.numba_categorical import categorical_kernel
from fastppo.kernels.loss.numba_gaussian import gaussian_kernel
from fastppo.kernels.loss.numba_rows import fill
from fastppo.kernels.mlp.numba_layers import (
    ACTOR,
    CRITIC,
    OUTPUTS,
    backward,
    forward,
    head,
    outputs_per_row,
    trunk,
)
from fastppo.kernels.tools.numba_math import ONE, ZERO
from fastppo.kernels.tools.numba_memory import OPTIONS, SIZE, address_of, keep, kernel, pointer

MAX_WIDTH = 128
"""Logits of a row that the loss kernel used here takes at its best."""


@njit(**OPTIONS)
def _gather(source, rows, out):
    for i in range(rows.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = source[rows[i], j]


@njit(**OPTIONS)
def _gather_1d(source, rows, out):
    for i in range(rows.shape[0]):
        out[i] = source[rows[i]]


_FLOATS, _ROWS, _INTS, _TABLE = "float32[::1]", "float32[:, ::1]", "int64[::1]", "int64[:, ::1]"
_NETWORK = f"{_FLOATS}, {_TABLE}, {_TABLE}, {_TABLE}, int64"


@kernel(f"void({_NETWORK}, {_INTS}, int64, {_ROWS}, int64, int64, int64, int64, int64, int64)")
def act_kernel(
    params,  # [P]
    actor,  # [L, 4]
    critic,  # [L, 4], or [0, 4]
    heads,  # [2, 4]
    activation,
    nvec,  # [H], or [0] for a Gaussian policy
    log_std_start,
    obs,  # [N, D]
    key,
    step,
    first_env,
    actions_at,  # [N, H] i64 or [N, A] f32, written
    log_probs_at,  # [N] f32, written
    values_at,  # [N] f32, written
):
    rows = obs.shape[0]
    width = heads[ACTOR, OUTPUTS]
    per_row, _ = outputs_per_row(actor)
    hidden = np.empty((2, rows * per_row), np.float32)
    outputs = np.empty((rows, width), np.float32)
    values = np.empty((rows, 1), np.float32)
    forward(params, actor, critic, heads, activation, obs, hidden, outputs, values)
    written = carray(pointer(values_at), (rows,), np.float32)
    for i in range(rows):
        written[i] = values[i, 0]
    if nvec.shape[0] > 0:
        draw_categorical(
            rows,
            width,
            nvec.shape[0],
            key,
            step,
            first_env,
            address_of(outputs),
            0,
            address_of(nvec),
            0,
            actions_at,
            log_probs_at,
            0,
        )
    else:
        draw_gaussian(
            rows,
            width,
            1,
            key,
            step,
            first_env,
            address_of(outputs),
            address_of(params) + SIZE * log_std_start,
            0,
            actions_at,
            log_probs_at,
            0,
        )
    keep(outputs)


@kernel(f"void({_NETWORK}, {_ROWS}, int64)")
def value_kernel(
    params,  # as for act_kernel, as the next four
    actor,
    critic,
    heads,
    activation,
    obs,  # [N, D]
    values_at,  # [N] f32, written
):
    rows = obs.shape[0]
    layers = critic if critic.shape[0] > 0 else actor
    per_row, _ = outputs_per_row(layers)
    hidden = np.empty(rows * per_row, np.float32)
    values = np.empty((rows, 1), np.float32)
    h = trunk(params, layers, activation, obs, hidden)
    head(params, heads[CRITIC], h, values)
    written = carray(pointer(values_at), (rows,), np.float32)
    for i in range(rows):
        written[i] = values[i, 0]


_UPDATE = ", ".join(
    [
        _NETWORK,
        *[_INTS, "int64"],
        *[_FLOATS] * 4,
        *[_ROWS, _TABLE, _ROWS],
        *[_FLOATS] * 4,
        *["boolean[::1]", _TABLE, "int64"],
        *["boolean", *["float64"] * 11],
        _FLOATS,
    ]
)


@kernel(f"void({_UPDATE})")
def update_kernel(
    params,  # as for act_kernel, as the next six; updated
    actor,
    critic,
    heads,
    activation,
    nvec,
    log_std_start,
    grad,  # [P], zero afterwards
    exp_avg,  # [P], updated, as the next two
    exp_avg_sq,
    step,  # [1]
    obs,  # [R, D]
    choices,  # [R, H] i64, or [0, 0]
    actions,  # [R, A], or [0, 0]
    old_log_probs,  # this and the next three: [R]
    advantages,
    returns,
    old_values,
    valid,  # [R]
    orders,  # [E, R]: a permutation of the rows for every epoch
    minibatch_size,
    norm_adv,
    clip_coef,
    vf_coef,
    ent_coef,
    clip_vloss,  # below 0: off
    dual_clip,  # inf: off
    target_kl,  # inf: off
    lr,
    beta1,
    beta2,
    eps,
    max_grad_norm,  # inf: off
    totals,  # [10]: sums over the steps taken of loss, norm and STATS [6]; steps taken, skipped
):
    size, width = minibatch_size, heads[ACTOR, OUTPUTS]
    per_row, widest = outputs_per_row(actor)
    discrete = nvec.shape[0] > 0
    hidden = np.empty((2, size * per_row), np.float32)
    scratch = np.empty((2, size * widest), np.float32)
    x = np.empty((size, obs.shape[1]), np.float32)
    outputs = np.empty((size, width), np.float32)
    values = np.empty((size, 1), np.float32)
    d_outputs = np.empty((size, width), np.float32)
    d_values = np.empty((size, 1), np.float32)
    chosen = np.empty((size, choices.shape[1]), np.int64)
    acted = np.empty((size, actions.shape[1]), np.float32)
    olds = np.empty((4, size), np.float32)  # log-probs, advantages, returns, values
    ok = np.empty(size, np.bool_)
    row = np.zeros(8, np.float32)  # loss, gradient norm, STATS
    flag = np.zeros(1, np.bool_)
    loss_at = address_of(row)
    norm_at, stats_at = loss_at + SIZE, loss_at + 2 * SIZE
    fill(totals, ZERO)
    for epoch in range(orders.shape[0]):
        epoch_kl, with_rows = ZERO, ZERO
        for first in range(0, orders.shape[1], size):
            rows = orders[epoch, first : first + size]
            _gather(obs, rows, x)
            _gather_1d(old_log_probs, rows, olds[0])
            _gather_1d(advantages, rows, olds[1])
            _gather_1d(returns, rows, olds[2])
            _gather_1d(old_values, rows, olds[3])
            _gather_1d(valid, rows, ok)
            if not ok.any():
                continue
            h, g = forward(params, actor, critic, heads, activation, x, hidden, outputs, values)
            if discrete:
                _gather(choices, rows, chosen)
                categorical_kernel(
                    size,
                    width,
                    nvec.shape[0],
                    address_of(outputs),
                    address_of(chosen),
                    0,
                    address_of(nvec),
                    address_of(d_outputs),
                    address_of(olds[0]),
                    address_of(olds[1]),
                    address_of(olds[2]),
                    address_of(olds[3]),
                    address_of(values),
                    address_of(ok),
                    0,
                    norm_adv,
                    -1.0,
                    clip_coef,
                    vf_coef,
                    ent_coef,
                    clip_vloss,
                    dual_clip,
                    address_of(d_values),
                    loss_at,
                    stats_at,
                )
            else:
                _gather(actions, rows, acted)
                gaussian_kernel(
                    size,
                    width,
                    address_of(outputs),
                    address_of(params) + SIZE * log_std_start,
                    True,
                    address_of(acted),
                    address_of(d_outputs),
                    address_of(grad) + SIZE * log_std_start,
                    address_of(olds[0]),
                    address_of(olds[1]),
                    address_of(olds[2]),
                    address_of(olds[3]),
                    address_of(values),
                    address_of(ok),
                    0,
                    norm_adv,
                    -1.0,
                    clip_coef,
                    vf_coef,
                    ent_coef,
                    clip_vloss,
                    dual_clip,
                    address_of(d_values),
                    loss_at,
                    stats_at,
                )
            epoch_kl += row[5]
            with_rows += ONE
            if not np.isfinite(row[0]):
                totals[9] += ONE
                continue
            backward(
                params,
                grad,
                actor,
                critic,
                heads,
                activation,
                x,
                hidden,
                h,
                g,
                d_outputs,
                d_values,
                scratch,
            )
            clip_adam_kernel(
                address_of(params),
                address_of(grad),
                address_of(exp_avg),
                address_of(exp_avg_sq),
                params.shape[0],
                address_of(step),
                0,
                0,
                lr,
                beta1,
                beta2,
                eps,
                max_grad_norm,
                False,
                norm_at,
                address_of(flag),
            )
            if flag[0]:
                for i in range(8):
                    totals[i] += row[i]
                totals[8] += ONE
            else:
                totals[9] += ONE
        if with_rows > ZERO and epoch_kl / with_rows > target_kl:
            break
    fill(grad, ZERO)
    for array in (x, outputs, values, d_outputs, d_values, acted, olds):
        keep(array)
    keep(chosen)
    keep(ok)
    keep(row)
    keep(flag)
