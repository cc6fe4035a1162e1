"""What users write today, op by op in eager torch: the yardstick of the kernel benchmarks.

Each function follows the common single-file PPO (CleanRL's shape, without its numpy detours) and
does the same work as the kernel beside it, statistics included. `torch.compile` gets the same code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

COEFFICIENTS = {"clip_coef": 0.1, "vf_coef": 0.5, "ent_coef": 0.01, "clip_vloss": 0.1}


def gae(
    rewards: Tensor, values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """The backward loop over time, [T, N]."""
    not_terminated = 1.0 - terminated.to(values.dtype)
    not_done = 1.0 - (terminated | truncated).to(values.dtype)
    advantages = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[0])
    for t in reversed(range(rewards.shape[0])):
        delta = rewards[t] + gamma * values[t + 1] * not_terminated[t] - values[t]
        advantages[t] = last = delta + gamma * lam * not_done[t] * last
    return advantages, advantages + values[:-1]


def _ppo(
    log_probs: Tensor,
    entropy: Tensor,
    new_values: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
) -> tuple[Tensor, Tensor]:
    clip = COEFFICIENTS["clip_coef"]
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy_loss = torch.max(
        -advantages * ratio, -advantages * torch.clamp(ratio, 1 - clip, 1 + clip)
    ).mean()
    near = COEFFICIENTS["clip_vloss"]
    clipped = old_values + torch.clamp(new_values - old_values, -near, near)
    value_loss = 0.5 * torch.max((new_values - returns) ** 2, (clipped - returns) ** 2).mean()
    mean_entropy = entropy.mean()
    loss = (
        policy_loss - COEFFICIENTS["ent_coef"] * mean_entropy + COEFFICIENTS["vf_coef"] * value_loss
    )
    with torch.no_grad():
        stats = torch.stack(
            [
                policy_loss,
                value_loss,
                mean_entropy,
                ((ratio - 1) - log_ratio).mean(),
                (-log_ratio).mean(),
                ((ratio - 1.0).abs() > clip).to(ratio.dtype).mean(),
            ]
        )
    return loss, stats


def categorical_ppo_loss(
    logits: Tensor, new_values: Tensor, actions: Tensor, *rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss and six statistics; logits in half precision are widened first."""
    log_p = log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
    log_probs = log_p.gather(1, actions[:, None]).squeeze(1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return _ppo(log_probs, entropy, new_values, *rows)


def gaussian_ppo_loss(
    mean: Tensor, log_std: Tensor, new_values: Tensor, actions: Tensor, *rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss and six statistics, by way of torch's own distribution."""
    normal = torch.distributions.Normal(mean, log_std.expand_as(mean).exp(), validate_args=False)
    log_probs = normal.log_prob(actions).sum(1)
    return _ppo(log_probs, normal.entropy().sum(1), new_values, *rows)


def advantage_stats(advantages: Tensor, index: Tensor) -> Tensor:
    """Mean and 1 / (std + 1e-8) of each minibatch, [M, 2], one minibatch after the other."""
    stats = []
    for rows in index:
        batch = advantages[rows]
        stats.append(torch.stack([batch.mean(), 1.0 / (batch.std() + 1e-8)]))
    return torch.stack(stats)


def act_categorical(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, log-probability and entropy from torch's own distribution."""
    policy = torch.distributions.Categorical(logits=logits, validate_args=False)
    actions = policy.sample()
    return actions, policy.log_prob(actions), policy.entropy()


def act_gaussian(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, log-probability and entropy from torch's own distribution."""
    policy = torch.distributions.Normal(mean, log_std.expand_as(mean).exp(), validate_args=False)
    actions = policy.sample()
    return actions, policy.log_prob(actions).sum(1), policy.entropy().sum(1)


def gather_rows(fields: Sequence[Tensor], index: Tensor) -> tuple[Tensor, ...]:
    """Indexes one field after the other."""
    return tuple(field[index] for field in fields)


def gather_frames(stacks: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Index, cast, divide: [R, 4, H, W] uint8 stacks, stored whole, to floats in 0 .. 1."""
    return stacks[index].to(dtype) / 255.0


def update_moments(
    mean: Tensor, var: Tensor, count: Tensor, rows: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Chan's merge of a batch into running moments; the valid rows are picked first."""
    rows = rows[valid]
    batch_mean, batch_var = rows.mean(0), rows.var(0, correction=0)
    batch_count = rows.shape[0]
    total = count + batch_count
    delta = batch_mean - mean
    squares = var * count + batch_var * batch_count + delta**2 * count * batch_count / total
    return mean + delta * batch_count / total, squares / total, total


def normalize(rows: Tensor, mean: Tensor, var: Tensor, clip: float) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8), clipped."""
    return torch.clamp((rows - mean.float()) / torch.sqrt(var.float() + 1e-8), -clip, clip)
