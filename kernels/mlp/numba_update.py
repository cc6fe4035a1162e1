"""A whole PPO update of a small actor-critic on the CPU in one call, on one thread or two.

A minibatch of a 64-64 network takes a fraction of a millisecond to compute, and as long again to
dispatch to torch op by op. Here the loss, the clip and Adam are the kernels of this package, and
the network is that of `numba_layers`. Parameters, gradients and Adam's moments are the flat
buffers that torch's modules view.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import njit

from fastppo.kernels.adam.numba_cpu import clip_adam_kernel
from fastppo.kernels.loss.numba_categorical import categorical_kernel
from fastppo.kernels.loss.numba_gaussian import gaussian_kernel
from fastppo.kernels.loss.numba_rows import LossRows, fill
from fastppo.kernels.mlp.numba_layers import (
    ACTOR,
    CRITIC,
    OUTPUTS,
    backward,
    backward_shared,
    head,
    trunk,
)
from fastppo.kernels.mlp.records import Adam, Floats, IntRows, Ints, Loss, Network, Rows, Scratch
from fastppo.kernels.tools.numba_math import ONE, ZERO
from fastppo.kernels.tools.numba_memory import (
    OPTIONS,
    SIZE,
    address_of,
    call_c,
    keep,
    kernel_of_records,
    load_acquire,
    store_release,
)

FORWARD, BACKWARD, STOP = 1, 2, 3
TICKET, COMMAND, DONE = 0, 8, 16
"""Slots of the mailbox: commands given, the last of them, commands done."""
SPINS = 4000
"""Reads of the mailbox, some 10 us, before a thread begins to yield its core between reads."""


@njit(**OPTIONS)
def _gather(source, rows, out):
    for i in range(rows.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = source[rows[i], j]


@njit(**OPTIONS)
def _gather_1d(source, rows, out):
    for i in range(rows.shape[0]):
        out[i] = source[rows[i]]


@njit(**OPTIONS)
def _wait(scratch, place, number):
    """Waits until a slot of the mailbox holds `number`."""
    at = address_of(scratch.mail) + 8 * place
    spins = 0
    while load_acquire(at) < number:
        spins += 1
        if spins > SPINS:
            call_c(scratch.yield_at, 0, 0)


@njit(**OPTIONS)
def _ask(scratch, command):
    """Gives the second thread, if there is one, a command."""
    if scratch.second:
        scratch.mail[COMMAND] = command
        store_release(address_of(scratch.mail) + 8 * TICKET, scratch.mail[TICKET] + 1)


@njit(**OPTIONS)
def _await(scratch):
    """Waits until the second thread, if there is one, is done."""
    if scratch.second:
        _wait(scratch, DONE, scratch.mail[TICKET])


@njit(**OPTIONS)
def _value(network, scratch):
    """The critic's side of a minibatch, forward."""
    hidden = scratch.hidden[CRITIC]
    g = trunk(network.params, network.critic, network.activation, scratch.x, hidden)
    head(network.params, network.heads[CRITIC], g, scratch.values)


@njit(**OPTIONS)
def _value_gradient(network, grad, scratch):
    """The critic's side of a minibatch, backward."""
    hidden = scratch.hidden[CRITIC]
    rows, widths = scratch.x.shape[0], network.critic[:, OUTPUTS]
    g = hidden[rows * widths[:-1].sum() : rows * widths.sum()].reshape((rows, widths[-1]))
    backward(
        network.params, grad, network.critic, network.heads[CRITIC], network.activation, scratch.x,
        hidden, g, scratch.d_values, scratch.critic,
    )  # fmt: skip


def dismiss(mail: Ints) -> None:
    """Ends the second thread when the first gave up the update."""
    mail[COMMAND] = STOP
    mail[TICKET] += 1


@kernel_of_records
def second_kernel(
    network: Network,  # with a critic of its own
    grad: Floats,
    scratch: Scratch,
):
    """The second thread of `update_kernel`: the critic's side of every minibatch.

    Actor and critic share no parameter and no sum, so two threads compute the same bits as one.
    """
    done = 0
    while True:
        _wait(scratch, TICKET, done + 1)
        done += 1
        command = scratch.mail[COMMAND]
        if command == FORWARD:
            _value(network, scratch)
        elif command == BACKWARD:
            _value_gradient(network, grad, scratch)
        store_release(address_of(scratch.mail) + 8 * DONE, done)
        if command == STOP:
            break


@kernel_of_records
def update_kernel(
    network: Network,  # its parameters are updated
    adam: Adam,
    rows: Rows,
    loss: Loss,
    orders: IntRows,  # [E, T * N]: a permutation of the rows for every epoch
    scratch: Scratch,  # its rows are those of a minibatch
    totals: Floats,  # [10]: sums over the steps taken of loss, norm and STATS [6]; taken, skipped
):
    params, activation = network.params, network.activation
    actor, critic, heads, nvec = network.actor, network.critic, network.heads, network.nvec
    log_std_at = SIZE * network.log_std_start
    size, num_rows, width = scratch.x.shape[0], orders.shape[1], heads[ACTOR, OUTPUTS]
    discrete = nvec.shape[0] > 0
    dim = rows.inputs.shape[2]
    inputs = rows.inputs.reshape((rows.inputs.shape[0] * rows.inputs.shape[1], dim))
    choices = rows.choices.reshape((num_rows if discrete else 0, rows.choices.shape[2]))
    actions = rows.actions.reshape((0 if discrete else num_rows, rows.actions.shape[2]))
    log_probs, values_of = rows.log_probs.reshape(num_rows), rows.values.reshape(inputs.shape[0])
    advantages, returns = rows.advantages.reshape(num_rows), rows.returns.reshape(num_rows)
    valid = rows.valid.reshape(num_rows)
    x, values, d_values = scratch.x, scratch.values, scratch.d_values
    outputs = np.empty((size, width), np.float32)
    d_outputs = np.empty((size, width), np.float32)
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
        for first in range(0, num_rows, size):
            index = orders[epoch, first : first + size]
            _gather(inputs, index, x)
            _gather_1d(log_probs, index, olds[0])
            _gather_1d(advantages, index, olds[1])
            _gather_1d(returns, index, olds[2])
            _gather_1d(values_of, index, olds[3])
            _gather_1d(valid, index, ok)
            if not ok.any():
                continue
            _ask(scratch, FORWARD)
            h = trunk(params, actor, activation, x, scratch.hidden[ACTOR])
            head(params, heads[ACTOR], h, outputs)
            if critic.shape[0] == 0:
                head(params, heads[CRITIC], h, values)
            elif not scratch.second:
                _value(network, scratch)
            _await(scratch)
            given = LossRows(
                address_of(olds[0]),
                address_of(olds[1]),
                address_of(olds[2]),
                address_of(olds[3]),
                address_of(values),
                address_of(ok),
                0,
                loss.norm_adv,
                -1.0,
                loss.clip_coef,
                loss.clip_coef,
                loss.vf_coef,
                loss.ent_coef,
                loss.clip_vloss,
                loss.dual_clip,
                address_of(d_values),
                loss_at,
                stats_at,
                0,
                0,
                0.0,
                0,
            )
            if discrete:
                _gather(choices, index, chosen)
                categorical_kernel(
                    size,
                    width,
                    nvec.shape[0],
                    address_of(outputs),
                    address_of(chosen),
                    0,
                    address_of(nvec),
                    address_of(d_outputs),
                    given,
                )
            else:
                _gather(actions, index, acted)
                gaussian_kernel(
                    size,
                    width,
                    address_of(outputs),
                    address_of(params) + log_std_at,
                    True,
                    address_of(acted),
                    address_of(d_outputs),
                    address_of(adam.grad) + log_std_at,
                    given,
                )
            epoch_kl += row[5]
            with_rows += ONE
            if not np.isfinite(row[0]):
                totals[9] += ONE
                continue
            _ask(scratch, BACKWARD)
            if critic.shape[0] == 0:
                backward_shared(
                    params, adam.grad, actor, heads, activation, x, scratch.hidden[ACTOR], h,
                    d_outputs, d_values, scratch.actor,
                )  # fmt: skip
            else:
                backward(
                    params, adam.grad, actor, heads[ACTOR], activation, x, scratch.hidden[ACTOR],
                    h, d_outputs, scratch.actor,
                )  # fmt: skip
                if not scratch.second:
                    _value_gradient(network, adam.grad, scratch)
            _await(scratch)
            clip_adam_kernel(
                address_of(params),
                address_of(adam.grad),
                address_of(adam.exp_avg),
                address_of(adam.exp_avg_sq),
                params.shape[0],
                address_of(adam.step),
                0,
                0,
                adam.lr,
                adam.beta1,
                adam.beta2,
                adam.eps,
                adam.max_grad_norm,
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
        if with_rows > ZERO and epoch_kl / with_rows > loss.target_kl:
            break
    _ask(scratch, STOP)
    fill(adam.grad, ZERO)
    for array in (outputs, d_outputs, acted, olds):
        keep(array)
    keep(chosen)
    keep(ok)
    keep(row)
    keep(flag)
