"""PPO on tokens: sample responses, score them, learn from them; the kernels are those of `api`."""

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastppo import checkpoint, flat, randomness
from fastppo.adam import FlatAdam
from fastppo.kernels import api
from fastppo.timing import PhaseTimer
from fastppo.token_config import TokenConfig
from fastppo.tokens.model import LanguageModel
from fastppo.tokens.sample import Responses, Rows, lay_out, sample
from fastppo.tokens.tasks import Bandit, Task
from fastppo.tokens.vocabulary import Vocabulary

STATS = ("policy_loss", "value_loss", "entropy", "approx_kl", "old_approx_kl", "clip_frac")


class Batch(NamedTuple):
    """What an update learns from; all but `rows` [B, T]."""

    rows: Rows
    tokens: Tensor
    valid: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    old_values: Tensor

    def take(self, rows: Tensor) -> "Batch":
        """Some of the sequences."""
        return Batch(self.rows.take(rows), *(one[rows] for one in self[1:]))


class TokenTrainer:
    """Everything that one run on tokens holds in memory.

    Args:
        policy: the model to train, on its device; the one it is held to is a copy of it as it is.
        reference: the state of that one, where a run goes on that has changed the policy.
        check_stop: called between the parts of an update; raises to abandon it.
    """

    def __init__(
        self,
        config: TokenConfig,
        policy: LanguageModel,
        vocabulary: Vocabulary,
        task: Task,
        *,
        state: dict[str, Any] | None = None,
        reference: dict[str, Any] | None = None,
        check_stop: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.task = task
        self.policy = policy
        self.device = next(policy.parameters()).device
        if reference is not None:
            with checkpoint.fitting():
                policy.load_state_dict(reference)
        self.reference = copy.deepcopy(policy).requires_grad_(False).eval()
        self.optimizer = FlatAdam(flat.flatten(policy), config)
        self.backend = self.optimizer.backend
        self.update = 0
        self.global_step = 0
        self.wall_time = 0.0
        self.skipped_steps = 0
        self.samples: list[dict[str, Any]] = []
        """Of the last update: prompt, response, score."""
        if state is not None:
            self._restore(state)
        self.timer = PhaseTimer(self.device, clock)
        self._check_stop = check_stop

    def run_update(self) -> dict[str, Any]:
        """Draws a batch of responses and learns from it.

        Returns:
            Metrics of this update, plain numbers, named as those of `fastppo train`: a token is an
            env step, a response an episode, its score the return.
        """
        self.timer.drain()
        self._check_stop()
        with self.timer.phase("policy"):
            rows, drawn = self._draw()
            places = rows.columns(self.config.num_steps) - 1
            old, values = self._score(self.policy, rows, places, drawn)
            reference, _ = self._score(self.reference, rows, places, drawn)
        self._check_stop()
        with self.timer.phase("env"):
            scores, judged = self._judge(drawn)
        with self.timer.phase("gae"):
            batch = self._batch(rows, drawn, old, reference, values, scores)
        with self.timer.phase("update"):
            stats = self._learn(batch)
        return self._metrics(stats, batch, scores, judged)

    def _draw(self) -> tuple[Rows, Responses]:
        config = self.config
        first = self.update * config.num_envs
        self._prompts = [self.task.prompt(first + i) for i in range(config.num_envs)]
        encoded = [self.vocabulary.encode(prompt) for prompt in self._prompts]
        rows = lay_out(encoded, config.num_steps, config.padding, self.device)
        responses = sample(
            self.policy,
            rows,
            config.num_steps,
            key=randomness.act_key(config.seed),
            first_step=self.update * config.num_steps,
            temperature=config.temperature,
            end=self.vocabulary.end if self.task.ends else None,
            backend=config.backend,
        )
        return rows, responses

    @torch.no_grad()
    def _score(
        self, model: LanguageModel, rows: Rows, places: Tensor, drawn: Responses
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the tokens drawn, and values, [B, T], a minibatch at a time.

        As training computes them, and not as sampling did, whose cache adds up in another order.
        """
        found = []
        size = self.config.num_envs // self.config.num_minibatches
        for part in torch.arange(self.config.num_envs, device=self.device).split(size):
            logits, values = model(rows.read[part], rows.start[part], places[part])
            scored = api.token_log_probs(
                logits,
                drawn.tokens[part],
                temperature=self.config.temperature,
                valid=drawn.valid[part],
                backend=self.config.backend,
            )
            found.append((scored, values))
        log_probs, values = zip(*found, strict=True)
        return torch.cat(log_probs), torch.cat(values)

    def _judge(self, drawn: Responses) -> tuple[Tensor, dict[str, float]]:
        """The scores [B], and what the task measures."""
        pairs = zip(drawn.tokens.tolist(), drawn.valid.sum(1).tolist(), strict=True)
        texts = [self.vocabulary.decode(tokens[:length]) for tokens, length in pairs]
        scores = self.task.scores(self._prompts, texts, drawn.tokens)
        self.samples = [
            {"prompt": prompt, "response": response, "score": score}
            for prompt, response, score in zip(self._prompts, texts, scores.tolist(), strict=True)
        ]
        return scores, dict(self.task.measures(texts, scores))

    def _batch(
        self,
        rows: Rows,
        drawn: Responses,
        old: Tensor,
        reference: Tensor,
        values: Tensor,
        scores: Tensor,
    ) -> Batch:
        """Rewards, advantages and returns."""
        config = self.config
        in_reward = config.kl_coef if config.kl_estimator == "k1_reward" else 0.0
        rewards = api.shape_rewards(scores, old, reference, drawn.valid, in_reward)
        never = torch.zeros_like(drawn.valid)
        advantages, returns = api.gae(
            rewards,
            nn.functional.pad(values, (0, 1)),  # nothing comes behind the last token
            never,
            never,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            valid=drawn.valid,
            layout="NT",
            backend=config.backend,
        )
        if config.norm_adv:
            advantages = api.whiten(advantages, drawn.valid)
        return Batch(rows, *drawn, old, reference, advantages, returns, values)

    def _learn(self, batch: Batch) -> dict[str, float]:
        """All epochs; the means of the statistics over the steps, and how many were skipped."""
        config = self.config
        rate = config.learning_rate_at(self.update)
        sums: dict[str, list[Tensor]] = {}
        skipped = []
        for epoch in range(config.update_epochs):
            order = randomness.shuffle(
                config.seed, self.update, epoch, config.num_envs, self.device
            )
            divergences = []
            for part in order.chunk(config.num_minibatches):
                self._check_stop()
                loss, stats = self._loss(batch.take(part))
                loss.backward()
                norm, taken = self.optimizer.step(rate, ~torch.isfinite(loss.detach()))
                skipped.append(~taken)
                divergences.append(stats["approx_kl"])
                for name, value in ({"loss": loss.detach(), "grad_norm": norm} | stats).items():
                    sums.setdefault(name, []).append(torch.where(taken, value, 0.0))
            limit = config.target_kl
            if limit is not None and float(torch.stack(divergences).mean()) > limit:
                break
        lost = int(torch.stack(skipped).sum())
        steps = len(skipped) - lost
        found = {name: float(torch.stack(of).sum()) for name, of in sums.items()}
        means = {name: total / max(1, steps) for name, total in found.items()}
        return means | {"optimizer_steps": float(steps), "skipped_steps": float(lost)}

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        low, high = config.clip_range_at(self.update)
        places = batch.rows.columns(config.num_steps) - 1
        logits, values = self.policy(batch.rows.read, batch.rows.start, places)
        in_loss = config.kl_estimator != "k1_reward" and config.kl_coef > 0
        return api.categorical_ppo_loss(
            logits,
            values,
            batch.tokens,
            batch.old_log_probs,
            batch.advantages,
            batch.returns,
            batch.old_values,
            batch.valid,
            clip_coef=(low, high),
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
            clip_vloss=low if config.clip_vloss else None,
            dual_clip=config.dual_clip,
            norm_adv=False,
            temperature=config.temperature,
            reduction=config.reduction,
            ref_log_probs=batch.ref_log_probs if in_loss else None,
            kl_coef=config.kl_coef if in_loss else 0.0,
            kl_estimator=config.kl_estimator if in_loss else "k2",
            backend=config.backend,
        )

    def _metrics(
        self, stats: dict[str, float], batch: Batch, scores: Tensor, judged: dict[str, float]
    ) -> dict[str, Any]:
        config, valid = self.config, batch.valid
        divergence = torch.where(valid, batch.old_log_probs - batch.ref_log_probs, 0.0)
        lengths = valid.sum(1).float()
        stats["explained_variance"] = _explained(batch)
        # of the policy that drew them, for each token
        stats["ref_kl"] = float(divergence.sum() / lengths.sum())
        if isinstance(self.task, Bandit):
            judged |= {"total_variation": self._distance(batch, self.task)}
        seconds = self.timer.drain()
        tokens = int(lengths.sum())
        rate = config.learning_rate_at(self.update)
        skipped = int(stats.pop("skipped_steps"))
        self.update += 1
        self.global_step += tokens
        self.wall_time += seconds["total"]
        self.skipped_steps += skipped
        metrics: dict[str, Any] = {
            "update": self.update,
            "global_step": self.global_step,
            "frames": self.global_step,
            "wall_time": self.wall_time,
            "env_steps": tokens,
            "env_steps_per_s": tokens / seconds["total"],
            "frames_per_s": tokens / seconds["total"],
            "learning_rate": rate,
            "skipped_steps": self.skipped_steps,
            "episode/count": len(scores),
            "episode/return": float(scores.mean()),
            "episode/length": float(lengths.mean()),
        }
        metrics |= {f"episode/{name}": value for name, value in judged.items()}
        metrics |= {f"loss/{name}": value for name, value in stats.items()}
        metrics |= {f"time/{name}": value for name, value in seconds.items()}
        return metrics

    @torch.no_grad()
    def _distance(self, batch: Batch, task: Bandit) -> float:
        """How far the policy, as it is now, is from the optimum, in total variation."""
        rows = batch.rows.take(torch.zeros(1, dtype=torch.int64, device=self.device))
        places = rows.columns(1) - 1
        ours, other = (
            (model(rows.read, rows.start, places)[0][0, 0] / self.config.temperature)
            .double()
            .log_softmax(-1)
            for model in (self.policy, self.reference)
        )
        return task.distance(ours, other, self.config.kl_coef)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; the model that the policy is held to is kept once, elsewhere."""
        return {
            "config": self.config.to_dict(),
            "update": self.update,
            "global_step": self.global_step,
            "wall_time": self.wall_time,
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.adam.state_dict(),
            "obs_normalizer": None,
            "reward_scaler": None,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.update = state["update"]
        self.global_step = state["global_step"]
        self.wall_time = state["wall_time"]
        with checkpoint.fitting():
            self.policy.load_state_dict(state["policy"])
            self.optimizer.adam.load_state_dict(state["optimizer"])

    def close(self) -> None:
        """Nothing outlives the process's memory."""


def _explained(batch: Batch) -> float:
    """How much of the variance of the returns the values explain, over valid tokens."""
    returns, values = batch.returns[batch.valid], batch.old_values[batch.valid]
    if len(returns) < 2:
        return 0.0
    spread = returns.var()
    return float(1.0 - (returns - values).var() / spread) if spread > 0 else 0.0
