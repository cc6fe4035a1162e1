"""The PPO loop that users write today, in one file: the yardstick of speed claims, and an oracle.

Eager PyTorch in the shape of CleanRL's ppo.py (https://github.com/vwxyzjn/cleanrl): one process,
one step after the other, losses from `torch.distributions`, plain `torch.optim.Adam`. It computes
what `fastppo.trainer.Trainer` computes, field by field of `Config` and draw by draw of
`fastppo.randomness`, and shares none of its code that computes: no policy, rollout, loss,
normalisation or kernel. tests/bench/test_reference.py holds the two equal.

Where habits differ, this file errs on the side of speed: images stay uint8 in the buffer,
distributions do not validate their arguments, and reset rows are dropped before the forward pass.
Threads are left as torch and EnvPool choose them; `fastppo bench train` tries others.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from fastppo import randomness
from fastppo.config import Config
from fastppo.errors import Diverged, UserError
from fastppo.pools import TimeLimit, make_pool
from fastppo.tasks import EnvSpec, has_own_flag, spec_of

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Batch(NamedTuple):
    """One rollout, flattened: B = T * N rows, reset rows among them."""

    obs: Tensor  # [B, ...] normalised where the run normalises
    actions: Tensor  # [B], [B, heads] or [B, D]
    log_probs: Tensor  # [B]
    values: Tensor  # [B]
    advantages: Tensor  # [B]
    returns: Tensor  # [B]
    valid: Tensor  # [B] bool


def layer_init(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """Orthogonal weights, zero bias."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, 0.0)
    return layer


def looks_like_image(shape: Sequence[int]) -> bool:
    """At most 16 channels, first or last, and at least 36x36 pixels for the Nature CNN."""
    if len(shape) != 3:
        return False
    channels = min(shape[0], shape[2])
    pixels = shape[1:] if shape[0] <= 16 else shape[:2]
    return channels <= 16 and min(pixels) >= 36


ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def mlp(num_inputs: int, hidden_sizes: Sequence[int], activation: str) -> nn.Sequential:
    """[B, ...] to [B, hidden_sizes[-1]]."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden_sizes:
        layers.append(layer_init(nn.Linear(num_inputs, width)))
        layers.append(ACTIVATIONS[activation]())
        num_inputs = width
    return nn.Sequential(*layers)


class NatureCNN(nn.Module):
    """Mnih et al. (2015) on [B, C, H, W] or [B, H, W, C] images, to [B, 512]."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.last = shape[0] > 16
        self.convs = nn.Sequential(
            layer_init(nn.Conv2d(shape[2] if self.last else shape[0], 32, 8, stride=4)),
            nn.ReLU(),
            layer_init(nn.Conv2d(32, 64, 4, stride=2)),
            nn.ReLU(),
            layer_init(nn.Conv2d(64, 64, 3, stride=1)),
            nn.ReLU(),
        )
        with torch.no_grad():
            example = torch.zeros(1, *shape)
            num_features = self.convs(example.movedim(-1, 1) if self.last else example).numel()
        self.fc = layer_init(nn.Linear(num_features, 512))

    def forward(self, obs: Tensor) -> Tensor:
        x = obs.movedim(-1, 1) if self.last else obs
        x = x.float() / 255.0 if x.dtype == torch.uint8 else x
        return torch.relu(self.fc(self.convs(x).flatten(1)))


class Agent(nn.Module):
    """Actor and critic. Layers are made, and named, as in fastppo's policy: weights carry over.

    Raises:
        UserError: the Nature CNN was asked for and the observation is not an image.
    """

    def __init__(self, spec: EnvSpec, config: Config) -> None:
        super().__init__()
        image = looks_like_image(spec.obs_shape)
        if config.network == "nature_cnn" and not image:
            raise UserError(f"network: 'nature_cnn' cannot read {spec.obs_shape}; use mlp")
        self.cnn = image and config.network != "mlp"

        def trunk() -> nn.Module:
            if self.cnn:
                return NatureCNN(spec.obs_shape)
            return mlp(math.prod(spec.obs_shape), config.hidden_sizes, config.activation)

        self.nvec = spec.nvec
        self.num_outputs = spec.action_dim if spec.nvec is None else sum(spec.nvec)
        width = 512 if self.cnn else config.hidden_sizes[-1]
        self.actor_trunk = trunk()
        self.critic_trunk = None if config.shared_trunk else trunk()
        self.actor_head = layer_init(nn.Linear(width, self.num_outputs), 0.01)
        self.critic_head = layer_init(nn.Linear(width, 1), 1.0)
        if spec.nvec is None:
            self.log_std = nn.Parameter(torch.full((spec.action_dim,), config.log_std_init))

    def outputs_and_value(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, sum(nvec)] or means [B, D], and V(s) [B]."""
        x = obs if self.cnn else obs.float()
        hidden = self.actor_trunk(x)
        critic_hidden = hidden if self.critic_trunk is None else self.critic_trunk(x)
        return self.actor_head(hidden), self.critic_head(critic_hidden).squeeze(-1)

    def get_value(self, obs: Tensor) -> Tensor:
        """V(s), [B]."""
        return self.outputs_and_value(obs)[1]

    def get_action_and_value(
        self, obs: Tensor, action: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Action, its log-prob, the entropy and V(s).

        Args:
            action: the action to judge; None draws one.
            noise: [B, num_outputs] Gumbel or normal noise to draw with, where `action` is None.
                `dist.sample()` would draw from the same distribution, but from a stream.
        """
        outputs, value = self.outputs_and_value(obs)
        if self.nvec is None:
            # NaN is to be skipped and counted in `update`, not raised by a distribution
            normal = Normal(outputs, self.log_std.exp().expand_as(outputs), validate_args=False)
            if action is None:
                assert noise is not None
                action = normal.mean + normal.stddev * noise
            return action, normal.log_prob(action).sum(1), normal.entropy().sum(1), value
        heads = [Categorical(logits=z, validate_args=False) for z in outputs.split(self.nvec, 1)]
        if action is None:
            assert noise is not None
            # Gumbel-max trick: argmax(logits + noise) is a draw from the softmax
            columns = noise.split(self.nvec, 1)
            draws = [(z.logits + g).argmax(1) for z, g in zip(heads, columns, strict=True)]
            action = draws[0] if len(draws) == 1 else torch.stack(draws, 1)
        columns = action.reshape(len(action), len(heads)).unbind(1)
        log_probs = [head.log_prob(a) for head, a in zip(heads, columns, strict=True)]
        entropies = [head.entropy() for head in heads]
        return action, torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0), value


class RunningMeanStd:
    """Mean and population variance of all rows seen (Chan et al., 1979), in float64."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean: NDArray[np.float64] = np.zeros(shape)
        self.var: NDArray[np.float64] = np.ones(shape)
        self.count = 0

    def update(self, rows: NDArray[Any]) -> None:
        """Merges [B, *shape] rows."""
        if len(rows) == 0:
            return
        mean, var = rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64)
        delta, total = mean - self.mean, self.count + len(rows)
        spread = self.var * self.count + var * len(rows)
        self.var = (spread + delta**2 * self.count * len(rows) / total) / total
        self.mean = self.mean + delta * len(rows) / total
        self.count = total


def compute_gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, [T, N], by equation 16 of https://arxiv.org/abs/1506.02438.

    Args:
        rewards: [T, N]
        values: [T + 1, N]; row T is the bootstrap value.
        terminated, truncated: [T, N] bool; both end the trace, only the first has no future value.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        # filled, not multiplied: what lies behind an episode's end may be NaN
        next_value = values[t + 1].masked_fill(terminated[t], 0.0)
        following = following.masked_fill(terminated[t] | truncated[t], 0.0)
        delta = rewards[t] + gamma * next_value - values[t]
        following = delta + gamma * gae_lambda * following
        advantages[t] = following
    return advantages, advantages + values[:-1]


def scale_rewards(
    rewards: Tensor, valid: Tensor, running: NDArray[Any], stats: RunningMeanStd, config: Config
) -> Tensor:
    """Rewards over the standard deviation of the discounted return, [T, N], clipped.

    Args:
        rewards, valid: [T, N]; reset rows open an episode and come out as 0.
        running: [N] discounted return so far, moved on in place.
        stats: merged with this rollout's discounted returns before they are used.
    """
    raw, ok = rewards.cpu().numpy(), valid.cpu().numpy()
    totals = np.zeros_like(raw)
    for t in range(len(raw)):
        running[:] = np.where(ok[t], raw[t] + config.gamma * running, 0.0)
        totals[t] = running
    stats.update(totals[ok])
    scaled = rewards.masked_fill(~valid, 0.0) / math.sqrt(float(stats.var) + 1e-8)
    return scaled.clamp(-config.reward_clip, config.reward_clip)


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, batch: Batch, config: Config, update_index: int
) -> dict[str, float]:
    """K epochs of minibatch steps on one rollout, and the means of what the steps reported."""
    optimizer.param_groups[0]["lr"] = config.learning_rate_at(update_index)
    clip_coef = config.clip_coef_at(update_index)
    reports: list[dict[str, float]] = []
    skipped = 0
    for epoch in range(config.update_epochs):
        kls: list[float] = []
        order = randomness.shuffle(
            config.seed, update_index, epoch, config.batch_size, batch.obs.device
        )
        for start in range(0, config.batch_size, config.minibatch_size):
            rows = order[start : start + config.minibatch_size]
            rows = rows[batch.valid[rows]]
            if len(rows) == 0:
                continue  # Adam's momentum would step without a gradient
            loss, report = minibatch_loss(agent, batch, rows, config, clip_coef)
            optimizer.zero_grad()
            loss.backward()
            max_norm = config.max_grad_norm or math.inf
            norm = nn.utils.clip_grad_norm_(agent.parameters(), max_norm).item()
            kls.append(report["approx_kl"])
            if math.isfinite(report["loss"]) and math.isfinite(norm):
                optimizer.step()
                reports.append(report | {"grad_norm": norm})
            else:
                skipped += 1
        if config.target_kl is not None and kls and float(np.mean(kls)) > config.target_kl:
            break
    means = {name: float(np.mean([r[name] for r in reports])) for name in (reports or [{}])[0]}
    return means | {"optimizer_steps": len(reports), "skipped_steps": skipped}


def minibatch_loss(
    agent: Agent, batch: Batch, rows: Tensor, config: Config, clip_coef: float
) -> tuple[Tensor, dict[str, float]]:
    """The PPO loss (https://arxiv.org/abs/1707.06347) of the given rows, all of them valid."""

    def mean(x: Tensor) -> Tensor:
        # a minibatch of reset rows alone has loss 0 and zero gradients, not NaN
        return x.sum() / max(len(rows), 1)

    _, new_log_probs, entropy, new_values = agent.get_action_and_value(
        batch.obs[rows], batch.actions[rows]
    )
    log_ratio = new_log_probs - batch.log_probs[rows]
    ratio = log_ratio.exp()
    advantages = batch.advantages[rows]
    if config.norm_adv and len(rows) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    unclipped = -advantages * ratio
    clipped = -advantages * torch.clamp(ratio, 1 - clip_coef, 1 + clip_coef)
    policy_terms = torch.max(unclipped, clipped)
    if config.dual_clip is not None:
        bounded = torch.min(policy_terms, -config.dual_clip * advantages)
        policy_terms = torch.where(advantages < 0, bounded, policy_terms)
    policy_loss = mean(policy_terms)

    returns, old_values = batch.returns[rows], batch.values[rows]
    value_terms = (new_values - returns) ** 2
    if config.clip_vloss:
        near = old_values + torch.clamp(new_values - old_values, -clip_coef, clip_coef)
        value_terms = torch.max(value_terms, (near - returns) ** 2)
    value_loss = 0.5 * mean(value_terms)

    entropy_mean = mean(entropy)
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy_mean
    with torch.no_grad():
        report = {
            "loss": loss.item(),
            "policy_loss": policy_loss.item(),
            "value_loss": value_loss.item(),
            "entropy": entropy_mean.item(),
            "approx_kl": mean((ratio - 1) - log_ratio).item(),
            "old_approx_kl": mean(-log_ratio).item(),
            "clip_frac": mean(((ratio - 1).abs() > clip_coef).float()).item(),
        }
    return loss, report


class ReferenceTrainer:
    """One training run; `run_update` is one turn of the loop that users write.

    Args:
        config: the same settings as for `fastppo.trainer.Trainer`.
        env_threads: EnvPool's threads; 0, as users have it, lets EnvPool choose.
        clock: seconds, for the times that are reported.

    Raises:
        UserError: the environment cannot be had.
    """

    def __init__(
        self,
        config: Config,
        *,
        env_threads: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config = config
        self._clock = clock
        self.spec = spec = spec_of(config)
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(default if config.device == "auto" else config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.init_seed(config.seed))
            self.agent = Agent(spec, config).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.agent.parameters(), lr=config.learning_rate, eps=config.adam_eps
        )
        seeds = randomness.env_seeds(config.seed, range(config.num_envs))
        # ends on the limit's step are ends: the limit is counted here, not by EnvPool
        self.time_limit, options = TimeLimit.of(config, config.num_envs)
        self.pool = make_pool(config, seeds, num_threads=env_threads, options=options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gymnasium: float64 bounds lose precision in float32
            self.action_space = self.pool.action_space
        self.action_dtype = self.pool.spec.action_array_spec["action"].dtype
        self.next_obs: NDArray[Any] = np.asarray(self.pool.reset()[0])
        self.done = np.zeros(config.num_envs, bool)
        self.obs_stats, self.return_stats = RunningMeanStd(spec.obs_shape), RunningMeanStd(())
        self.discounted = np.zeros(config.num_envs)
        self.episode_returns = np.zeros(config.num_envs)
        self.episode_lengths = np.zeros(config.num_envs, int)
        self.finished: list[tuple[float, int]] = []
        self.update_index = self.global_step = self.skipped_steps = 0

        shape, device = (config.num_steps, config.num_envs), self.device
        self.raw_obs = np.zeros((*shape, *spec.obs_shape), spec.obs_dtype)
        bytes_will_do = spec.obs_dtype == np.uint8 and not config.norm_obs
        obs_dtype = torch.uint8 if bytes_will_do else torch.float32
        self.obs = torch.zeros(*shape, *spec.obs_shape, dtype=obs_dtype, device=device)
        self.log_probs, self.rewards = torch.zeros(2, *shape, device=device)
        self.values = torch.zeros(shape[0] + 1, shape[1], device=device)
        flags = torch.zeros(3, *shape, dtype=torch.bool, device=device)
        self.terminated, self.truncated, self.valid = flags

    def run_update(self) -> dict[str, Any]:
        """Collects one rollout and learns from it.

        Returns:
            Metrics under the names of `fastppo.trainer.Trainer.run_update`.

        Raises:
            Diverged: `max_skipped_steps` optimizer steps were skipped since the start.
        """
        start = self._clock()
        seconds = {"env": 0.0, "policy": 0.0}
        actions = self._collect(seconds)
        collected = self._clock()
        batch = self._make_batch(actions)
        batched = self._clock()
        stats = update(self.agent, self.optimizer, batch, self.config, self.update_index)
        if self.config.norm_obs:
            # merged once per rollout: one rollout is acted and learned on under the same scale
            self.obs_stats.update(self.raw_obs[self.valid.cpu().numpy()])
        updated = self._clock()
        seconds |= {"gae": batched - collected, "update": updated - batched}
        seconds |= {
            "total": updated - start,
            "other": max(0.0, updated - start - sum(seconds.values())),
        }

        env_steps = int(self.valid.sum().item())
        self.update_index += 1
        self.global_step += env_steps
        self.skipped_steps += int(stats.pop("skipped_steps"))
        if self.skipped_steps >= self.config.max_skipped_steps:
            raise Diverged(f"max_skipped_steps: {self.skipped_steps} steps were not finite")
        metrics: dict[str, Any] = {
            "update": self.update_index,
            "global_step": self.global_step,
            "env_steps": env_steps,
            "env_steps_per_s": env_steps / seconds["total"],
            "skipped_steps": self.skipped_steps,
            "episode/count": len(self.finished),
        }
        if self.finished:
            totals, lengths = zip(*self.finished, strict=True)
            metrics["episode/return"] = float(np.mean(totals))
            metrics["episode/length"] = float(np.mean(lengths))
            self.finished.clear()
        metrics |= {f"loss/{name}": value for name, value in stats.items()}
        metrics |= {f"time/{name}": value for name, value in seconds.items()}
        return metrics

    def _collect(self, seconds: dict[str, float]) -> Tensor:
        """Fills the buffers with T steps, books the time, and returns the actions [T, N, ...]."""
        config = self.config
        draw = randomness.normals if self.spec.nvec is None else randomness.gumbels
        first = self.update_index * config.num_steps
        steps, width = range(first, first + config.num_steps), self.agent.num_outputs
        noise = draw(config.seed, range(config.num_envs), steps, width, self.device)
        actions = []
        for t in range(config.num_steps):
            begin = self._clock()
            self.raw_obs[t] = self.next_obs
            self.obs[t] = self._to_input(self.next_obs)
            with torch.no_grad():
                action, self.log_probs[t], _, self.values[t] = self.agent.get_action_and_value(
                    self.obs[t], noise=noise[t]
                )
            actions.append(action)
            env_action = self._to_env(action.cpu().numpy())
            acted = self._clock()
            self.next_obs, rewards, terminated, truncated, info = self.time_limit.step(
                self.pool, env_action
            )
            seconds["policy"] += acted - begin
            seconds["env"] += self._clock() - acted

            # EnvPool resets on the step after done; that row ignores its action: no transition
            valid = ~self.done
            game_over = terminated
            if has_own_flag(config.env_id):
                # EnvPool calls a death on the last allowed step a truncation, and with
                # episodic_life a lost life a termination; the game's own flag knows better
                game_over = info["terminated"].astype(bool) & (terminated | truncated)
                terminated, truncated = terminated | game_over, truncated & ~game_over
            self.done = terminated | truncated
            self._count_episodes(rewards, valid, game_over | truncated)
            self.rewards[t] = torch.as_tensor(np.sign(rewards) if config.sign_reward else rewards)
            self.terminated[t] = torch.as_tensor(terminated)
            self.truncated[t] = torch.as_tensor(truncated)
            self.valid[t] = torch.as_tensor(valid)
        with torch.no_grad():
            self.values[-1] = self.agent.get_value(self._to_input(self.next_obs))
        return torch.stack(actions)

    def _make_batch(self, actions: Tensor) -> Batch:
        config, rewards = self.config, self.rewards
        if config.norm_reward:
            rewards = scale_rewards(rewards, self.valid, self.discounted, self.return_stats, config)
        advantages, returns = compute_gae(
            rewards,
            self.values,
            self.terminated,
            self.truncated,
            config.gamma,
            config.gae_lambda,
        )
        rollout = (self.obs, actions, self.log_probs, self.values[:-1], advantages, returns)
        return Batch(*(rows.flatten(0, 1) for rows in (*rollout, self.valid)))

    def close(self) -> None:
        """Stops EnvPool's threads."""
        self.pool.close()

    def _to_input(self, obs: NDArray[Any]) -> Tensor:
        if self.config.norm_obs:
            scaled = (obs - self.obs_stats.mean) / np.sqrt(self.obs_stats.var + 1e-8)
            clipped = np.clip(scaled, -self.config.obs_clip, self.config.obs_clip)
            return torch.as_tensor(clipped, dtype=torch.float32).to(self.device)
        return torch.as_tensor(obs).to(self.device)

    def _to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        space = self.action_space
        actions = actions.reshape(len(actions), *space.shape)
        if self.spec.nvec is None:
            actions = np.clip(actions, space.low, space.high)
        elif isinstance(space, spaces.Box):
            actions = actions + space.low
        elif isinstance(space, spaces.Discrete):
            actions = actions + space.start
        return np.ascontiguousarray(actions, dtype=self.action_dtype)

    def _count_episodes(
        self, rewards: NDArray[Any], valid: NDArray[Any], over: NDArray[Any]
    ) -> None:
        """Adds up raw rewards; a game that ends in this row goes to `finished`."""
        self.episode_returns[valid] += rewards[valid]
        self.episode_lengths[valid] += 1
        for env in np.flatnonzero(over & valid):
            self.finished.append((self.episode_returns[env], self.episode_lengths[env]))
            self.episode_returns[env], self.episode_lengths[env] = 0.0, 0
