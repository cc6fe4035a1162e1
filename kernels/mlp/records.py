"""Arguments of the kernels of the MLP engine, each list written once.

The strings are the types as numba has them, from which `kernel_of_records` makes signatures.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_WIDTH = 128
"""Most logits of a row that the loss kernel used here computes across rows."""

Floats = Annotated[NDArray[np.float32], "float32[::1]"]
FloatRows = Annotated[NDArray[np.float32], "float32[:, ::1]"]
FloatGrid = Annotated[NDArray[np.float32], "float32[:, :, ::1]"]
DoubleRows = Annotated[NDArray[np.float64], "float64[:, ::1]"]
Flags = Annotated[NDArray[np.bool_], "boolean[::1]"]
Int32Rows = Annotated[NDArray[np.int32], "int32[:, ::1]"]
Doubles = Annotated[NDArray[np.float64], "float64[::1]"]
Ints = Annotated[NDArray[np.int64], "int64[::1]"]
IntRows = Annotated[NDArray[np.int64], "int64[:, ::1]"]
IntGrid = Annotated[NDArray[np.int64], "int64[:, :, ::1]"]
FlagRows = Annotated[NDArray[np.bool_], "boolean[:, ::1]"]


class Network(NamedTuple):
    """An actor-critic over one flat buffer; `numba_layers` says what a table of layers is."""

    params: Floats  # [P]
    actor: IntRows  # [L, 4]
    critic: IntRows  # [L, 4], or [0, 4] where it has the actor's
    heads: IntRows  # [2, 4]
    activation: int  # place in `numba_layers.ACTIVATIONS`
    nvec: Ints  # [H], or [0] for a Gaussian policy
    log_std_start: int


class Rows(NamedTuple):
    """A rollout of T steps of N environments."""

    obs: FloatGrid  # [T + 1, N, D] as the environments gave them
    inputs: FloatGrid  # [T + 1, N, D] as the policy reads them; the same where nothing normalises
    choices: IntGrid  # [T, N, H], or [0, 0, 0]
    actions: FloatGrid  # [T, N, A], or [0, 0, 0]
    log_probs: FloatRows  # [T, N]
    values: FloatRows  # [T + 1, N]
    advantages: FloatRows  # [T, N], as the next two
    returns: FloatRows
    valid: FlagRows


class Normal(NamedTuple):
    """The running moments that observations are normalised by."""

    mean: Doubles  # [D], or [0] for none
    var: Doubles  # [D]
    clip: float
    epsilon: float


class Stepper(NamedTuple):
    """Two C functions that step N environments, and the buffers that they read and write.

    Of the two buffers of observations, and of the three of actions, one is used.
    """

    send: int  # addresses: send(send_frame) and then recv(recv_frame) return 0
    send_frame: int
    recv: int
    recv_frame: int
    clock: int  # of clock_gettime
    obs32: FloatRows  # [N, D], or [0, 0]
    obs64: DoubleRows
    rewards: Floats  # [N]
    done: Flags  # [N] the episode ended or was cut
    truncated: Flags  # [N] it was cut
    choices: Int32Rows  # [N, H], or [0, 0]
    actions32: FloatRows  # [N, A], or [0, 0]
    actions64: DoubleRows
    low: Doubles  # [H] what choices count from, or [A] the least action
    high: Doubles  # [A]


class Ends(NamedTuple):
    """State of the running episodes."""

    done: Flags  # [N] whose last row ended an episode, updated
    steps: Ints  # [N] of the episode, updated
    limit: int  # of steps, or 0: the environments cut by themselves


class Answers(NamedTuple):
    """Rows of a rollout that the environments' answers go to, on the host."""

    rewards: FloatRows  # [T, N]
    terminated: FlagRows  # [T, N], as the next two
    truncated: FlagRows
    valid: FlagRows


class Adam(NamedTuple):
    """The state of the optimizer, and its step."""

    grad: Floats  # [P], zero before and afterwards
    exp_avg: Floats  # [P], updated, as the next two
    exp_avg_sq: Floats
    step: Floats  # [1]
    lr: float
    beta1: float
    beta2: float
    eps: float
    max_grad_norm: float  # inf: off


class Scratch(NamedTuple):
    """Scratch memory of an update, for a minibatch of B rows."""

    x: FloatRows  # [B, D]
    hidden: FloatRows  # [2, B * `outputs_per_row`]: of the actor's trunk, and of the critic's
    actor: FloatRows  # [2, B * widest], as the next
    critic: FloatRows
    values: FloatRows  # [B, 1], as the next
    d_values: FloatRows
    mail: Ints  # [24], zeros: for a second thread, a cache line for each number
    second: bool  # whether there is one
    yield_at: int  # address of sched_yield


class Loss(NamedTuple):
    """The terms of the loss."""

    norm_adv: bool
    clip_coef: float
    vf_coef: float
    ent_coef: float
    clip_vloss: float  # below 0: off
    dual_clip: float  # inf: off
    target_kl: float  # inf: off


def empty(ndim: int, dtype: Any) -> NDArray[Any]:
    """Stands for an array that is absent."""
    return np.zeros((0,) * ndim, dtype)
