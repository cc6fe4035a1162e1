"""One update against the textbook, and what must not matter: padding, splits, a stop in between."""

import copy
from typing import Any

import pytest
import torch
from token_runs import make_trainer
from torch import Tensor

from fastppo import checkpoint, randomness
from fastppo.errors import Diverged
from fastppo.run import loop
from fastppo.signals import StopRequest
from fastppo.tokens import command
from fastppo.tokens.sample import lay_out, sample
from fastppo.tokens.trainer import TokenTrainer

TIMES = {"wall_time", "env_steps_per_s", "frames_per_s"}


def untimed(metrics: dict[str, Any]) -> dict[str, Any]:
    kept = metrics.items()
    return {k: v for k, v in kept if k not in TIMES and not k.startswith("time/")}


def textbook(trainer: TokenTrainer, clip: tuple[float, float]) -> dict[str, Tensor]:
    """The parameters after one update of one minibatch and two epochs, row by row, in float64."""
    config, task, vocabulary = trainer.config, trainer.task, trainer.vocabulary
    cpu = torch.device("cpu")
    prompts = [task.prompt(i) for i in range(config.num_envs)]
    encoded = [vocabulary.encode(prompt) for prompt in prompts]
    rows = lay_out(encoded, config.num_steps, "left", cpu)
    drawn = sample(
        trainer.policy, rows, config.num_steps, key=randomness.act_key(config.seed), first_step=0,
        temperature=config.temperature, end=vocabulary.end, backend="torch",
    )  # fmt: skip
    responses = [t[m].tolist() for t, m in zip(drawn.tokens, drawn.valid, strict=True)]
    policy = copy.deepcopy(trainer.policy).double()
    reference = copy.deepcopy(trainer.reference).double()
    for parameter in policy.parameters():
        parameter.grad = None

    def scored(model: Any, prompt: list[int], response: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        row = torch.tensor([[*prompt, *response]])
        places = torch.arange(len(prompt) - 1, row.shape[1] - 1)[None]
        logits, values = model(row[:, :-1], torch.zeros(1).long(), places)
        all_log_probs = (logits[0] / config.temperature).log_softmax(-1)
        entropy = -(all_log_probs.exp() * all_log_probs).sum(-1)
        return all_log_probs[range(len(response)), response], values[0], entropy

    old, advantages, returns = [], [], []
    for prompt, text, response in zip(encoded, prompts, responses, strict=True):
        with torch.no_grad():
            log_probs, values, _ = scored(policy, prompt, response)
            ref, _, _ = scored(reference, prompt, response)
        rewards = -config.kl_coef * (log_probs - ref)
        score = task.scores([text], [vocabulary.decode(response)], torch.tensor([response]))
        rewards[-1] += float(score)
        running, found = 0.0, []
        for t in reversed(range(len(response))):
            after = float(values[t + 1]) if t + 1 < len(response) else 0.0
            delta = float(rewards[t]) + config.gamma * after - float(values[t])
            running = delta + config.gamma * config.gae_lambda * running
            found.append(running)
        advantage = torch.tensor(found[::-1]).double()
        old.append(log_probs)
        advantages.append(advantage)
        returns.append(advantage + values)
    whole = torch.cat(advantages)
    advantages = [(one - whole.mean()) / (whole.std() + 1e-8) for one in advantages]
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=config.adam_eps)
    for _ in range(config.update_epochs):
        loss = torch.zeros(()).double()
        for i, response in enumerate(responses):
            log_probs, values, entropy = scored(policy, encoded[i], response)
            ratio = (log_probs - old[i]).exp()
            clipped = ratio.clamp(1 - clip[0], 1 + clip[1])
            loss += torch.max(-advantages[i] * ratio, -advantages[i] * clipped).sum()
            loss += config.vf_coef * 0.5 * (values - returns[i]).square().sum()
            loss -= config.ent_coef * entropy.sum()
        optimizer.zero_grad()
        (loss / len(whole)).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimizer.step()
    return {name: value.detach() for name, value in policy.named_parameters()}


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_an_update_is_that_of_the_textbook(backend: str) -> None:
    trainer = make_trainer(
        num_envs=12, num_minibatches=1, total_timesteps=12 * 4 * 2, anneal_lr=False, ent_coef=0.02,
        temperature=0.8, clip_coef=0.01, clip_coef_high=0.03, gae_lambda=0.9, gamma=0.97,
        adam_eps=1e-3, backend=backend,
    )  # fmt: skip
    expected = textbook(trainer, (0.01, 0.03))

    metrics = trainer.run_update()

    assert 0.0 < metrics["loss/clip_frac"] < 1.0
    assert metrics["episode/length"] < 4.0  # some end early
    for name, value in trainer.policy.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-3, atol=2e-5)


def test_the_side_of_the_padding_changes_no_curve() -> None:
    left, right = make_trainer(padding="left"), make_trainer(padding="right")

    for _ in range(3):
        ours, theirs = untimed(left.run_update()), untimed(right.run_update())
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], rel=2e-3, abs=2e-5), name
        assert left.samples == right.samples


def test_a_policy_that_was_not_trained_yet_has_ratio_one() -> None:
    trainer = make_trainer(update_epochs=1, num_minibatches=1)

    metrics = trainer.run_update()

    assert metrics["loss/approx_kl"] == pytest.approx(0.0, abs=1e-10)
    assert metrics["loss/clip_frac"] == 0.0
    assert metrics["loss/ref_kl"] == 0.0  # and is its own reference


@pytest.mark.parametrize("estimator", ["k1_reward", "k2", "k3_is"])
def test_a_bandit_goes_to_its_optimum(estimator: str) -> None:
    trainer = make_trainer(
        env_id="tokens/bandit", num_envs=256, total_timesteps=40 * 256, kl_estimator=estimator,
        kl_coef=0.5, update_epochs=4, learning_rate=1e-2,
    )  # fmt: skip

    distances = [trainer.run_update()["episode/total_variation"] for _ in range(40)]

    assert distances[0] > 0.15
    assert distances[-1] < 0.25 * distances[0]


@pytest.mark.parametrize("reduction", ["token", "sequence", "sequence_sum", "constant"])
def test_every_reduction_trains(reduction: str) -> None:
    trainer = make_trainer(reduction=reduction)
    before = trainer.optimizer.parameter.detach().clone()

    metrics = trainer.run_update()

    assert metrics["skipped_steps"] == 0
    assert not torch.equal(before, trainer.optimizer.parameter)


def test_a_run_that_goes_on_is_the_run_that_was_not_stopped() -> None:
    whole, stopped = make_trainer(), make_trainer()
    reference = {name: one.clone() for name, one in stopped.policy.state_dict().items()}
    expected = [untimed(whole.run_update()) for _ in range(4)]
    found = [untimed(stopped.run_update()) for _ in range(2)]

    again = command.Made(stopped.config).trainer(
        StopRequest(), state=stopped.state(), reference=reference
    )

    assert [*found, *(untimed(again.run_update()) for _ in range(2))] == expected


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    trainer = make_trainer(max_skipped_steps=3)
    scores = trainer.task.scores
    trainer.task.scores = lambda *a: torch.full_like(scores(*a), torch.nan)  # type: ignore[method-assign]
    before = trainer.optimizer.parameter.detach().clone()

    metrics = trainer.run_update()

    assert metrics["skipped_steps"] == 4
    assert torch.equal(before, trainer.optimizer.parameter)
    with pytest.raises(Diverged, match="max_skipped_steps: 4 optimizer steps"):
        loop.check_diverged(trainer.skipped_steps, trainer.config)


def test_target_kl_ends_an_update_early() -> None:
    trainer = make_trainer(target_kl=1e-9, update_epochs=4, learning_rate=1e-2)

    metrics = trainer.run_update()

    assert metrics["loss/optimizer_steps"] == 2  # one epoch of two minibatches


def test_the_state_fits_a_checkpoint(tmp_path: Any) -> None:
    trainer = make_trainer()
    trainer.run_update()
    path = tmp_path / "checkpoints" / "00000001.pt"
    checkpoint.save(path, trainer.state())

    assert checkpoint.load(path)["update"] == 1
