"""Running statistics on the training device: observations to unit scale, rewards to unit returns.

Both are merged once per rollout (Chan et al., 1979) in float64, over valid rows alone, so that a
rollout is collected and learned from under one set of statistics, and so that several processes
can merge the same sums. Gymnasium's wrappers update per step instead.
"""

import torch
from torch import Tensor, nn

from fastppo.kernels import api

EPSILON = 1e-8
"""Added to a variance before its root is taken."""


class RunningMoments(nn.Module):
    """Mean and population variance of everything seen, elementwise over `shape`."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, rows: Tensor, valid: Tensor, backend: str = "auto") -> None:
        """Merges the valid rows that are finite; anything may stand in the others.

        Args:
            rows: [B, *shape]
            valid: [B] bool
        """
        api.update_moments_(self.mean, self.var, self.count, rows, valid, backend=backend)


class ObsNormalizer(nn.Module):
    """(obs - mean) / sqrt(var + EPSILON), clipped; before any data only clipped."""

    def __init__(self, shape: tuple[int, ...], clip: float, backend: str = "auto") -> None:
        super().__init__()
        self.moments = RunningMoments(shape)
        self.clip = clip
        self.backend = backend

    def update(self, obs: Tensor, valid: Tensor) -> None:
        """Merges the valid observations, as `RunningMoments.update`."""
        self.moments.update(obs, valid, self.backend)

    def forward(self, obs: Tensor, out: Tensor | None = None) -> Tensor:
        """[..., *shape] of any dtype to float32, into `out` if given."""
        mean, var = self.moments.mean, self.moments.var
        return api.normalize(
            obs, mean, var, clip=self.clip, epsilon=EPSILON, out=out, backend=self.backend
        )


class RewardScaler(nn.Module):
    """Divides rewards by the running standard deviation of the discounted return.

    Engstrom et al. (arXiv 2005.12729), code-level optimisation 2. The return runs forward in time,
    G_t = r_t + gamma * G_{t-1}, and starts again at every episode.
    """

    running: Tensor

    def __init__(self, num_envs: int, gamma: float, clip: float) -> None:
        super().__init__()
        self.moments = RunningMoments(())
        self.gamma = gamma
        self.clip = clip
        # not saved: a resumed run starts new episodes
        self.register_buffer("running", torch.zeros(num_envs), persistent=False)

    @torch.no_grad()
    def forward(self, rewards: Tensor, valid: Tensor, backend: str) -> Tensor:
        """Updates the statistics with one rollout and returns its scaled, clipped rewards.

        Args:
            rewards, valid: [T, N]; rewards of invalid rows are ignored and come out as 0.
        """
        rewards = torch.where(valid, rewards, 0.0)
        # The forward sum is a GAE scan of the rollout played backwards, with values 0, lambda 1
        # and the trace cut at the reset rows, which open the episodes.
        values = torch.zeros(len(rewards) + 1, rewards.shape[1], device=rewards.device)
        values[-1] = self.running
        opens = ~valid.flip(0)
        returns, _ = api.gae(
            rewards.flip(0),
            values,
            opens,
            torch.zeros_like(opens),
            gamma=self.gamma,
            gae_lambda=1.0,
            backend=backend,
        )
        # finite rewards may add up to more than float32 holds, and no episode's end is near
        self.running.copy_(torch.where(returns[0].isfinite(), returns[0], 0.0))
        self.moments.update(returns.flip(0).reshape(-1), valid.reshape(-1), backend)
        scaled = rewards * torch.rsqrt(self.moments.var + EPSILON).float()
        return scaled.clamp_(-self.clip, self.clip)
