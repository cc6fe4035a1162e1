"""Log-probabilities of tokens in plain torch: the specification, and the oracle of tests."""

import math

import torch
from torch import Tensor


def token_log_probs(
    logits: Tensor, tokens: Tensor, valid: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """log softmax(logits / temperature) of each token, and the entropy of its distribution.

        log p_a = z_a - log sum_v e^z_v,  H = -sum_v p_v log p_v,  z = logits / temperature

    Args:
        logits: [R, V]
        tokens: [R] integer; one outside 0 .. V - 1 has log-probability NaN.
        valid: [R] bool, or None for all; other rows are 0 in both, and in the gradient.

    Returns:
        log-probabilities and entropies, [R], differentiable; bfloat16 logits give float32.
    """
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    ok = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
    # before the softmax: autograd multiplies by zero, and NaN times zero is NaN
    log_p = (torch.where(ok[:, None], logits, 0.0) / temperature).log_softmax(1)
    width = logits.shape[1]
    exists = (tokens >= 0) & (tokens < width)
    index = torch.where(ok & exists, tokens, 0).long()
    picked = log_p.gather(1, index[:, None])[:, 0]
    picked = torch.where(exists, picked, math.nan)
    finite = torch.where(log_p == -math.inf, 0.0, log_p)
    entropy = -(log_p.exp() * finite).sum(1)
    return torch.where(ok, picked, 0.0), torch.where(ok, entropy, 0.0)
