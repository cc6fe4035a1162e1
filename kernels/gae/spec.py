"""Generalized advantage estimation in plain torch: the specification, and the oracle of tests."""

from typing import Any

import torch
from torch import Tensor


def _cleaned(
    rewards: Tensor, values: Tensor, terminated: Tensor, truncated: Tensor, lengths: Tensor
) -> tuple[Tensor, ...]:
    """The same, time-major, with padding of zeros that no step before it sees."""
    step = torch.arange(len(values), device=values.device)[:, None]
    live = step[:-1] < lengths
    return (
        torch.where(live, rewards, 0.0),
        torch.where(step <= lengths, values, 0.0),
        terminated & live,
        truncated | (step[:-1] == lengths - 1),
    )


def _without_holes(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    lengths: Tensor | None,
    valid: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """`gae` of rows whose valid steps were moved to the front, moved back."""
    num_rows, num_steps = rewards.shape
    if lengths is None:
        lengths = torch.full((num_rows,), num_steps, device=rewards.device)
    ends = lengths.long().clamp(0, num_steps)[:, None]
    live = valid & (torch.arange(num_steps, device=rewards.device) < ends)
    order = torch.argsort(~live, dim=1, stable=True)
    count = live.sum(1)
    bootstrap = values.gather(1, ends)
    behind = torch.cat([values[:, :-1].gather(1, order), bootstrap], 1)
    behind = behind.scatter(1, count[:, None], bootstrap)
    rewards, terminated, truncated = (x.gather(1, order) for x in (rewards, terminated, truncated))
    advantages, returns = gae(rewards, behind, terminated, truncated, count, layout="NT", **options)
    zeros = torch.zeros_like(advantages)
    return zeros.scatter(1, order, advantages), zeros.scatter(1, order, returns)


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    lengths: Tensor | None = None,
    *,
    gamma: float,
    gae_lambda: float,
    layout: str = "TN",
    valid: Tensor | None = None,
    lambdas: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalized advantage estimation, as a backward scan.

        delta_t = r_t + gamma * V_{t+1} * (1 - terminated_t) - V_t
        A_t     = delta_t + gamma * lambda * (1 - done_t) * A_{t+1}
        done_t  = terminated_t or truncated_t

    This is equation 16 of https://arxiv.org/abs/1506.02438, cut at episode ends. The products
    with (1 - flag) are selections: what lies behind an episode end, even NaN, does not leak.

    Args:
        rewards: [T, N]
        values: [T + 1, N]; row t + 1 is the value of the state that step t led to.
        terminated: [T, N] bool; the episode ended in a state of value zero.
        truncated: [T, N] bool; the episode was cut, so V_{t+1} still counts.
        lengths: [N]; with layout "NT" only. Steps from there on are padding: not read, 0 in the
            results.
        valid: [N, T] bool; with layout "NT" only. A row counts as if the others were cut out.
        lambdas: [N]; with layout "NT" only, in place of gae_lambda.
        layout: "TN", or "NT" where every tensor is [N, T], and values [N, T + 1].
        out: what to write, or None.

    Returns:
        advantages and returns (advantages + values of the same steps), shaped as rewards; float32
        for bfloat16.
    """
    if valid is not None:
        options: dict[str, Any] = {"gamma": gamma, "gae_lambda": gae_lambda, "lambdas": lambdas}
        rows = (rewards, values, terminated, truncated)
        results = _without_holes(*rows, lengths, valid, **options)
        return results if out is None else (out[0].copy_(results[0]), out[1].copy_(results[1]))
    rewards, values = (x.float() if x.dtype == torch.bfloat16 else x for x in (rewards, values))
    if layout == "NT":
        rewards, values, terminated, truncated = (
            x.T for x in (rewards, values, terminated, truncated)
        )
    live = None
    if lengths is not None:
        live = torch.arange(len(rewards), device=rewards.device)[:, None] < lengths
        rewards, values, terminated, truncated = _cleaned(
            rewards, values, terminated, truncated, lengths
        )
    done = terminated | truncated
    next_values = torch.where(terminated, 0.0, values[1:])
    deltas = rewards + gamma * next_values - values[:-1]
    advantages = torch.empty_like(deltas)
    carry = torch.zeros_like(deltas[0])
    decay = gamma * (gae_lambda if lambdas is None else lambdas.to(deltas.dtype))
    for t in reversed(range(rewards.shape[0])):
        carry = deltas[t] + decay * torch.where(done[t], 0.0, carry)
        advantages[t] = carry
    returns = advantages + values[:-1]
    if live is not None:
        advantages, returns = (torch.where(live, x, 0.0) for x in (advantages, returns))
    if layout == "NT":
        advantages, returns = advantages.T, returns.T
    if out is None:
        return advantages.contiguous(), returns.contiguous()
    out[0].copy_(advantages)
    out[1].copy_(returns)
    return out
