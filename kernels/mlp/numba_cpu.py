"""A small actor-critic on the CPU: one call acts, one values a whole rollout.

The draw is the kernel of `act`, and the network is that of `numba_layers`, over the flat buffer
that torch's modules view.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np

from fastppo.kernels.act.numba_cpu import categorical_kernel as draw_categorical
from fastppo.kernels.act.numba_cpu import gaussian_kernel as draw_gaussian
from fastppo.kernels.mlp.numba_layers import ACTOR, CRITIC, OUTPUTS, head, outputs_per_row, trunk
from fastppo.kernels.mlp.records import Network, Normal, Rows
from fastppo.kernels.moments.numba_cpu import normalize_kernel
from fastppo.kernels.tools.numba_memory import SIZE, address_of, keep, kernel_of_records

BLOCK = 512
"""Rows whose values are computed at a time: their hidden layers stay in the cache."""


@kernel_of_records
def act_kernel(
    network: Network,
    rows: Rows,  # row t of inputs (where it is normalised), actions and log-probs is written
    normal: Normal,
    t: int,
    key: int,
    step: int,
    first_env: int,
):
    num_envs, width = rows.obs.shape[1], network.heads[ACTOR, OUTPUTS]
    x = rows.inputs[t]
    if normal.mean.shape[0] > 0:
        normalize_kernel(
            address_of(x),
            address_of(rows.obs[t]),
            address_of(normal.mean),
            address_of(normal.var),
            num_envs,
            x.shape[1],
            normal.clip,
            normal.epsilon,
        )
    per_row = outputs_per_row(network.actor, network.activation)
    hidden = np.empty(num_envs * per_row, np.float32)
    outputs = np.empty((num_envs, width), np.float32)
    h = trunk(network.params, network.actor, network.activation, x, hidden)
    head(network.params, network.heads[ACTOR], h, outputs)
    log_probs_at = address_of(rows.log_probs[t])
    if network.nvec.shape[0] > 0:
        draw_categorical(
            num_envs,
            width,
            network.nvec.shape[0],
            key,
            step,
            first_env,
            address_of(outputs),
            0,
            address_of(network.nvec),
            0,
            address_of(rows.choices[t]),
            log_probs_at,
            0,
        )
    else:
        draw_gaussian(
            num_envs,
            width,
            1,
            key,
            step,
            first_env,
            address_of(outputs),
            address_of(network.params) + SIZE * network.log_std_start,
            0,
            address_of(rows.actions[t]),
            log_probs_at,
            0,
        )
    keep(outputs)


@kernel_of_records
def value_kernel(
    network: Network,
    rows: Rows,  # all values are written, and row T of the inputs where it is normalised
    normal: Normal,
):
    last = rows.obs.shape[0] - 1
    num_rows, width = rows.obs.shape[0] * rows.obs.shape[1], rows.obs.shape[2]
    if normal.mean.shape[0] > 0:
        normalize_kernel(
            address_of(rows.inputs[last]),
            address_of(rows.obs[last]),
            address_of(normal.mean),
            address_of(normal.var),
            rows.obs.shape[1],
            width,
            normal.clip,
            normal.epsilon,
        )
    inputs = rows.inputs.reshape((num_rows, width))
    values = rows.values.reshape((num_rows, 1))
    layers = network.critic if network.critic.shape[0] > 0 else network.actor
    per_row = outputs_per_row(layers, network.activation)
    hidden = np.empty(min(BLOCK, num_rows) * per_row, np.float32)
    for first in range(0, num_rows, BLOCK):
        x = inputs[first : min(first + BLOCK, num_rows)]
        h = trunk(network.params, layers, network.activation, x, hidden)
        head(network.params, network.heads[CRITIC], h, values[first : first + x.shape[0]])
