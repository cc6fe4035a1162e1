"""Acting in plain torch: the specification, and the oracle of tests.

The uniform numbers are float32, the same bits in every backend; all that follows is computed in the
dtype of the outputs.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastppo.kernels.act.drawn import Drawn
from fastppo.kernels.tools import philox
from fastppo.kernels.tools.philox import Counter


@torch.no_grad()
def categorical(
    logits: Tensor,
    counter: Counter,
    nvec: Sequence[int],
    action_mask: Tensor | None,
    out: Drawn,
) -> None:
    """Draws an action per row and head by the Gumbel-max trick.

        a        = argmax_j z_j + g_j,    g_j = -log(-log u_j)
        log pi   = z_a - log sum_j exp(z_j)
        H(pi)    = -sum_j p_j log p_j

    This is https://arxiv.org/abs/1611.01144, section 2, equation 1. Column j uses number j of its
    row. A NaN is never the largest, and without any number above -inf the action is 0.

    Args:
        logits: [B, sum(nvec)]: one block of columns per head.
        nvec: number of actions of each head; log-probabilities and entropies add over heads.
        action_mask: as logits, bool; False makes an action impossible, whatever its logit.
        out: actions [B, H], or [B] for one head, int64; log_probs and entropy are NaN where the
            head has no softmax.
    """
    z = logits.to(out.log_probs.dtype)
    if action_mask is not None:
        z = torch.where(action_mask, z, -math.inf)
    rows, width = z.shape
    u = philox.row_uniforms(counter, rows, width, z.device)
    perturbed = z + philox.to_gumbel(u.to(z.dtype))
    perturbed = torch.where(perturbed.isnan(), -math.inf, perturbed)
    total, total_entropy = torch.zeros_like(out.log_probs), torch.zeros_like(out.log_probs)
    heads = zip(z.split(list(nvec), 1), perturbed.split(list(nvec), 1), strict=True)
    columns = out.actions.view(len(z), -1)
    for head, (z_head, perturbed_head) in enumerate(heads):
        choice = perturbed_head.argmax(1)
        logp = z_head.log_softmax(1)
        total += logp.gather(1, choice[:, None])[:, 0]
        # p * log p is 0 at p = 0, but 0 * -inf is NaN
        total_entropy -= (logp.exp() * torch.where(logp == -math.inf, 0.0, logp)).sum(1)
        columns[:, head] = choice
    out.log_probs.copy_(total)
    if out.entropy is not None:
        out.entropy.copy_(total_entropy)


@torch.no_grad()
def gaussian(
    mean: Tensor,
    log_std: Tensor,
    counter: Counter,
    out: Drawn,
) -> None:
    """Draws an action per row from a diagonal Gaussian, by Box and Muller's transform.

        a      = mean + std * n
        log pi = sum_d -(a_d - mean_d)^2 / (2 std_d^2) - log_std_d - log(2 pi) / 2
        H(pi)  = sum_d log_std_d + (1 + log(2 pi)) / 2

    With P = ceil(D / 2), component d < P is sqrt(-2 log u_d) cos(2 pi u_{P+d}), and component
    P + d the sine. The log-probability is that of the action as rounded, which is what the update
    will see; computed from n it would differ in the last bits.

    Args:
        mean: [B, D]
        log_std: [D], or [B, D] where it depends on the state.
        out: actions [B, D].
    """
    dtype, (rows, width) = out.log_probs.dtype, mean.shape
    mean, log_std = mean.to(dtype), log_std.to(dtype)
    u = philox.row_uniforms(counter, rows, 2 * -(-width // 2), mean.device)
    out.actions.copy_(mean + log_std.exp() * philox.to_normal(u.to(dtype), width))
    scaled = (out.actions - mean) * torch.exp(-log_std)
    half_log_2pi = 0.5 * math.log(2.0 * math.pi)
    out.log_probs.copy_((-0.5 * scaled.square() - log_std - half_log_2pi).sum(1))
    if out.entropy is not None:
        out.entropy.copy_((log_std + 0.5 + half_log_2pi).expand_as(mean).sum(1))
