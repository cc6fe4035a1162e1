"""Layers of a small actor-critic on the CPU, forward and backward, over one flat parameter buffer.

Products are BLAS's (numba compiles np.dot to scipy's), and what lies between them is one loop each.

A layer is a row of int64, [WEIGHT, BIAS, INPUTS, OUTPUTS]: where its weight [outputs, inputs] and
bias begin in the flat buffer, and its widths. A critic without its own trunk uses the actor's.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import numpy as np
from numba import njit

from fastppo.kernels.loss.numba_rows import fill
from fastppo.kernels.tools.numba_math import ONE, ZERO, exp, exp_of_negative, tanh
from fastppo.kernels.tools.numba_memory import OPTIONS

ACTIVATIONS = ("tanh", "relu", "elu", "silu")
"""By their number in `Network.activation`."""
TANH, RELU, ELU, SILU = range(len(ACTIVATIONS))
WEIGHT, BIAS, INPUTS, OUTPUTS = range(4)
ACTOR, CRITIC = 0, 1
"""Rows of the two heads."""


@njit(**OPTIONS)
def _weight(buffer, layer):
    size = layer[OUTPUTS] * layer[INPUTS]
    flat = buffer[layer[WEIGHT] : layer[WEIGHT] + size]
    return flat.reshape((layer[OUTPUTS], layer[INPUTS]))


@njit(**OPTIONS)
def _bias(buffer, layer):
    return buffer[layer[BIAS] : layer[BIAS] + layer[OUTPUTS]]


@njit(**OPTIONS)
def _add(y, bias):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] += bias[j]


@njit(**OPTIONS)
def _add_tanh(y, bias):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = tanh(y[i, j] + bias[j])


@njit(**OPTIONS)
def _add_relu(y, bias):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            z = y[i, j] + bias[j]
            # a NaN stays one
            y[i, j] = ZERO if z < ZERO else z


@njit(**OPTIONS)
def _add_elu(y, bias):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            z = y[i, j] + bias[j]
            # a NaN stays one
            low = ZERO if z > ZERO else z
            y[i, j] = z if z > ZERO else exp_of_negative(low) - ONE


@njit(**OPTIONS)
def _add_silu(y, bias, slopes):
    """Keeps the derivative too, which does not follow from the output."""
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            z = y[i, j] + bias[j]
            gate = ONE / (ONE + exp(-z))
            y[i, j] = z * gate
            slopes[i, j] = gate * (ONE + z * (ONE - gate))


@njit(**OPTIONS)
def _through_tanh(d, y):
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] *= ONE - y[i, j] * y[i, j]


@njit(**OPTIONS)
def _through_relu(d, y):
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] = d[i, j] if y[i, j] > ZERO else ZERO


@njit(**OPTIONS)
def _through_elu(d, y):
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] *= ONE if y[i, j] > ZERO else y[i, j] + ONE


@njit(**OPTIONS)
def _through_silu(d, slopes):
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] *= slopes[i, j]


@njit(**OPTIONS)
def _slopes(hidden, start, stop, shape):
    """Where SiLU's derivatives are kept: in the second half of `hidden`."""
    half = hidden.shape[0] // 2
    return hidden[half + start : half + stop].reshape(shape)


@njit(**OPTIONS)
def _add_up(total, d):
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            total[i, j] += d[i, j]


@njit(**OPTIONS)
def _column_sums(d, sums):
    fill(sums, ZERO)
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            sums[j] += d[i, j]


@njit(**OPTIONS)
def head(params, layer, h, y):
    """y = h W^T + b."""
    np.dot(h, _weight(params, layer).T, y)
    _add(y, _bias(params, layer))


@njit(**OPTIONS)
def trunk(params, layers, activation, x, hidden):
    """Output of the last layer, [B, width]; all outputs, one after another, in `hidden`.

    Args:
        hidden: B * `outputs_per_row` numbers or more; its second half is used with SiLU alone.
    """
    h = x
    start = 0
    for i in range(layers.shape[0]):
        layer = layers[i]
        stop = start + x.shape[0] * layer[OUTPUTS]
        y = hidden[start:stop].reshape((x.shape[0], layer[OUTPUTS]))
        np.dot(h, _weight(params, layer).T, y)
        if activation == TANH:
            _add_tanh(y, _bias(params, layer))
        elif activation == RELU:
            _add_relu(y, _bias(params, layer))
        elif activation == ELU:
            _add_elu(y, _bias(params, layer))
        else:
            _add_silu(y, _bias(params, layer), _slopes(hidden, start, stop, y.shape))
        h = y
        start = stop
    return h


@njit(**OPTIONS)
def _back_layer(grad, layer, x, d):
    """Gradients of weight and bias from those of the layer's sums, d [B, outputs]."""
    np.dot(d.T, x, _weight(grad, layer))
    _column_sums(d, _bias(grad, layer))


@njit(**OPTIONS)
def _back_trunk(params, grad, layers, activation, x, hidden, d, scratch):
    """Gradients of all layers.

    Args:
        d: [B, width] of the last output, in scratch[0]; overwritten.
        scratch: [2, B * widest].
    """
    rows = x.shape[0]
    stop = 0
    for i in range(layers.shape[0]):
        stop += rows * layers[i, OUTPUTS]
    other = 1
    for i in range(layers.shape[0] - 1, -1, -1):
        layer = layers[i]
        start = stop - rows * layer[OUTPUTS]
        y = hidden[start:stop].reshape((rows, layer[OUTPUTS]))
        if activation == TANH:
            _through_tanh(d, y)
        elif activation == RELU:
            _through_relu(d, y)
        elif activation == ELU:
            _through_elu(d, y)
        else:
            _through_silu(d, _slopes(hidden, start, stop, y.shape))
        if i == 0:
            _back_layer(grad, layer, x, d)
        else:
            size = rows * layer[INPUTS]
            _back_layer(grad, layer, hidden[start - size : start].reshape((rows, layer[INPUTS])), d)
            below = scratch[other, :size].reshape((rows, layer[INPUTS]))
            np.dot(d, _weight(params, layer), below)
            d = below
            other = 1 - other
        stop = start


@njit(**OPTIONS)
def outputs_per_row(layers, activation):
    """Numbers that a row leaves in `hidden`."""
    total = layers[:, OUTPUTS].sum()
    return 2 * total if activation == SILU else total


@njit(**OPTIONS)
def backward(params, grad, layers, last, activation, x, hidden, h, d, scratch):
    """Gradients of a trunk and its head `last`, overwritten.

    Args:
        h: [B, width] the trunk's output.
        d: [B, outputs] of the head's outputs.
        scratch: [2, B * widest].
    """
    size = x.shape[0] * last[INPUTS]
    below = scratch[0, :size].reshape((x.shape[0], last[INPUTS]))
    _back_layer(grad, last, h, d)
    np.dot(d, _weight(params, last), below)
    _back_trunk(params, grad, layers, activation, x, hidden, below, scratch)


@njit(**OPTIONS)
def backward_shared(
    params, grad, layers, heads, activation, x, hidden, h, d_outputs, d_values, scratch
):
    """As `backward`, of a trunk that both heads share."""
    rows = x.shape[0]
    size = rows * heads[ACTOR, INPUTS]
    d = scratch[0, :size].reshape((rows, heads[ACTOR, INPUTS]))
    other = scratch[1, :size].reshape((rows, heads[ACTOR, INPUTS]))
    _back_layer(grad, heads[CRITIC], h, d_values)
    np.dot(d_values, _weight(params, heads[CRITIC]), d)
    _back_layer(grad, heads[ACTOR], h, d_outputs)
    np.dot(d_outputs, _weight(params, heads[ACTOR]), other)
    _add_up(d, other)
    _back_trunk(params, grad, layers, activation, x, hidden, d, scratch)
