"""Initial weights, network shapes, and actions drawn from the distribution they claim."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastppo import randomness
from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.policy import ACTIVATIONS, Act, ActorCritic, Mlp, NatureCnn, is_image
from fastppo.tasks import EnvSpec

CPU = torch.device("cpu")
KEY = randomness.act_key(3)
VECTOR = EnvSpec(
    env_id="X", family="mujoco", obs_shape=(5,), obs_dtype=np.dtype(np.float32), action_dim=1,
    nvec=(3,), frame_skip=1,
)  # fmt: skip
IMAGE = dataclasses.replace(VECTOR, obs_shape=(4, 84, 84), obs_dtype=np.dtype(np.uint8))
HEADS = {
    "discrete": VECTOR,
    "multi-discrete": dataclasses.replace(VECTOR, nvec=(3, 2, 4), action_dim=3),
    "continuous": dataclasses.replace(VECTOR, nvec=None, action_dim=3),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def layers_of(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def gain_of(layer: nn.Linear | nn.Conv2d) -> float:
    """The gain of an orthogonal layer; fails where rows (or columns) are not orthogonal."""
    weight = layer.weight.detach().flatten(1).double()
    if weight.shape[0] > weight.shape[1]:
        weight = weight.T
    gram = weight @ weight.T
    torch.testing.assert_close(
        gram, gram[0, 0] * torch.eye(len(gram), dtype=torch.float64), atol=1e-5, rtol=1e-5
    )
    return math.sqrt(float(gram[0, 0]))


@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("spec", [*HEADS.values(), IMAGE], ids=[*HEADS, "image"])
def test_weights_are_orthogonal_with_the_published_gains_and_biases_zero(
    spec: EnvSpec, shared_trunk: bool, tiny: Callable[..., Config]
) -> None:
    policy = ActorCritic(spec, tiny(shared_trunk=shared_trunk))
    heads: dict[nn.Module, float] = {policy.actor_head: 0.01, policy.critic_head: 1.0}

    for layer in layers_of(policy):
        assert gain_of(layer) == pytest.approx(heads.get(layer, math.sqrt(2)), rel=1e-4)
        assert layer.bias is not None
        assert not layer.bias.any()


@pytest.mark.parametrize(("shared_trunk", "trunks"), [(True, 1), (False, 2)])
def test_shared_trunk_is_held_once(
    shared_trunk: bool, trunks: int, tiny: Callable[..., Config]
) -> None:
    policy = ActorCritic(VECTOR, tiny(shared_trunk=shared_trunk, hidden_sizes=(7, 6)))
    trunk, heads = 5 * 7 + 7 + 7 * 6 + 6, 6 * 3 + 3 + 6 + 1

    assert sum(p.numel() for p in policy.parameters()) == trunks * trunk + heads
    assert sum(t.numel() for t in policy.state_dict().values()) == trunks * trunk + heads


def test_the_critic_moves_a_shared_trunk_and_spares_a_separate_one(
    tiny: Callable[..., Config],
) -> None:
    moved = {}
    for shared in (True, False):
        policy = ActorCritic(VECTOR, tiny(shared_trunk=shared))
        policy(torch.randn(8, 5))[1].sum().backward()
        moved[shared] = any(
            p.grad is not None and bool(p.grad.any()) for p in policy.actor_trunk.parameters()
        )

    assert moved == {True: True, False: False}


@pytest.mark.parametrize("shape", [(4, 84, 84), (1, 36, 36), (84, 84, 3), (72, 96, 4), (3, 64, 48)])
def test_nature_cnn_reads_images_with_channels_first_or_last(shape: tuple[int, ...]) -> None:
    assert is_image(shape)

    features = NatureCnn(shape)(torch.randint(0, 256, (2, *shape), dtype=torch.uint8))

    assert features.shape == (2, 512)
    assert (features >= 0).all()


def test_nature_cnn_on_atari_has_the_published_size() -> None:
    """Mnih et al. (2015): 32 8x8/4, 64 4x4/2, 64 3x3/1 and 512 units."""
    cnn = NatureCnn((4, 84, 84))
    convs = [layer for layer in layers_of(cnn) if isinstance(layer, nn.Conv2d)]

    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [
        (32, 8, 4), (64, 4, 2), (64, 3, 1),
    ]  # fmt: skip
    assert (cnn.fc.in_features, cnn.fc.out_features) == (3136, 512)


def test_channels_last_images_are_turned_and_not_reshaped() -> None:
    first = NatureCnn((3, 40, 50))
    last = NatureCnn((40, 50, 3))
    last.load_state_dict(first.state_dict())
    images = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)

    torch.testing.assert_close(last(images.permute(0, 2, 3, 1)), first(images))


def test_bytes_are_scaled_to_the_unit_interval_and_floats_are_left(
    tiny: Callable[..., Config],
) -> None:
    policy = ActorCritic(IMAGE, tiny())
    images = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8)

    torch.testing.assert_close(policy(images), policy(images.float() / 255))


def test_bytes_that_are_no_image_reach_the_mlp_as_they_are(tiny: Callable[..., Config]) -> None:
    policy = ActorCritic(VECTOR, tiny())
    obs = torch.randint(0, 256, (2, 5), dtype=torch.uint8)

    torch.testing.assert_close(policy(obs), policy(obs.float()))


@pytest.mark.parametrize("shape", [(5,), (10, 5), (15, 7), (2, 12, 12), (35, 84, 3), (20, 84, 84)])
def test_what_the_nature_cnn_cannot_read_goes_to_the_mlp_and_is_refused_by_name(
    shape: tuple[int, ...], tiny: Callable[..., Config]
) -> None:
    spec = dataclasses.replace(VECTOR, obs_shape=shape)
    policy = ActorCritic(spec, tiny())

    assert isinstance(policy.actor_trunk, Mlp)
    assert policy(torch.zeros(2, *shape))[1].shape == (2,)
    with pytest.raises(UserError, match=r"network: 'nature_cnn' cannot read .*; use mlp"):
        ActorCritic(spec, tiny(network="nature_cnn"))


def test_mlp_can_be_chosen_for_images(tiny: Callable[..., Config]) -> None:
    assert not ActorCritic(IMAGE, tiny(network="mlp")).uses_cnn
    assert ActorCritic(IMAGE, tiny()).uses_cnn


@pytest.mark.parametrize(("activation", "kind"), ACTIVATIONS.items())
def test_mlp_has_the_widths_and_activation_asked_for(activation: str, kind: type) -> None:
    mlp = Mlp(5, (8, 9), activation)

    assert [(layer.in_features, layer.out_features) for layer in layers_of(mlp)] == [
        (5, 8), (8, 9),
    ]  # fmt: skip
    assert sum(isinstance(layer, kind) for layer in mlp) == 2
    assert mlp.width == 9


def peaked(spec: EnvSpec, tiny: Callable[..., Config]) -> ActorCritic:
    """A policy far from uniform, with standard deviations that differ."""
    policy = ActorCritic(spec, tiny())
    with torch.no_grad():
        policy.actor_head.weight.mul_(100)
        policy.actor_head.bias.copy_(torch.linspace(-1, 1, policy.actor_head.out_features))
        if spec.nvec is None:
            policy.log_std.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    return policy


def log_probs_by_torch(policy: ActorCritic, spec: EnvSpec, obs: Tensor, actions: Tensor) -> Tensor:
    distributions: Any = torch.distributions
    outputs, _ = policy(obs)
    if spec.nvec is None:
        normal = distributions.Normal(outputs, policy.log_std.exp())
        return torch.as_tensor(normal.log_prob(actions).sum(-1))
    heads = zip(outputs.split(spec.nvec, -1), actions.view(len(obs), -1).unbind(-1), strict=True)
    return torch.stack([distributions.Categorical(logits=z).log_prob(a) for z, a in heads]).sum(0)


@pytest.mark.parametrize("head", HEADS)
def test_log_probs_equal_those_of_torch_distributions(
    head: str, tiny: Callable[..., Config]
) -> None:
    spec = HEADS[head]
    policy = peaked(spec, tiny)
    obs = torch.randn(64, 5)

    act = policy.act(obs, 0, key=KEY)

    expected = log_probs_by_torch(policy, spec, obs, act.actions).detach()
    torch.testing.assert_close(act.log_probs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(act.values, policy.value(obs))
    shape = {"discrete": (64,), "multi-discrete": (64, 3), "continuous": (64, 3)}[head]
    assert act.actions.shape == shape
    assert act.actions.dtype == (torch.float32 if head == "continuous" else torch.int64)


@pytest.mark.parametrize("head", HEADS)
def test_actions_are_those_of_the_noise_that_the_run_is_keyed_by(
    head: str, tiny: Callable[..., Config]
) -> None:
    """What the reference trainer draws with torch operations, the kernel draws by itself."""
    spec = HEADS[head]
    policy = peaked(spec, tiny)
    obs, width = torch.randn(64, 5), policy.actor_head.out_features
    outputs: Tensor = policy(obs)[0].detach()
    draw = randomness.normals if spec.nvec is None else randomness.gumbels
    noise = draw(3, range(7, 71), range(5, 6), width, CPU)[0]

    actions = policy.act(obs, 5, key=randomness.act_key(3), first_env=7).actions

    if spec.nvec is None:
        torch.testing.assert_close(actions, outputs + policy.log_std.detach().exp() * noise)
        return
    heads = (outputs + noise).split(spec.nvec, 1)
    assert torch.equal(actions.view(64, -1), torch.stack([z.argmax(1) for z in heads], 1))


@pytest.mark.parametrize("head", HEADS)
def test_one_process_of_8_environments_acts_as_two_of_4(
    head: str, tiny: Callable[..., Config]
) -> None:
    policy = peaked(HEADS[head], tiny)
    obs, step = torch.randn(8, 5), torch.tensor(3)

    whole = policy.act(obs, 3, key=KEY)
    halves = [policy.act(obs[e : e + 4], step, key=KEY, first_env=e) for e in (0, 4)]

    for all_rows, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close(all_rows, torch.cat([first, second]))


@pytest.mark.parametrize("head", HEADS)
def test_out_is_written_and_returned(head: str, tiny: Callable[..., Config]) -> None:
    policy = peaked(HEADS[head], tiny)
    obs = torch.randn(4, 5)
    made = policy.act(obs, 3, key=KEY)
    out = Act(*(torch.zeros(2, *t.shape, dtype=t.dtype)[1] for t in made))

    returned = policy.act(obs, 3, key=KEY, out=out)

    assert returned is out
    assert all(torch.equal(a, e) for a, e in zip(out, made, strict=True))


@pytest.mark.parametrize("head", ["discrete", "multi-discrete"])
def test_choices_come_as_often_as_their_probability_says(
    head: str, tiny: Callable[..., Config]
) -> None:
    """20,000 draws under fixed keys: a deviation beyond 4.5 standard errors fails."""
    spec, rows = HEADS[head], 20_000
    assert spec.nvec is not None
    policy = peaked(spec, tiny)
    obs = torch.randn(1, 5).expand(rows, -1)
    logits = policy(obs[:1])[0][0].detach()

    actions = policy.act(obs, 0, key=KEY).actions.view(rows, -1)

    for z, drawn, choices in zip(
        logits.split(spec.nvec), actions.unbind(-1), spec.nvec, strict=True
    ):
        p = torch.softmax(z, -1)
        frequency = torch.bincount(drawn, minlength=choices) / rows
        assert p.max() - p.min() > 0.05  # a uniform draw would fail
        assert ((frequency - p).abs() < 4.5 * (p * (1 - p) / rows).sqrt()).all()


def test_heads_are_drawn_independently(tiny: Callable[..., Config]) -> None:
    spec, rows = HEADS["multi-discrete"], 20_000
    policy = peaked(spec, tiny)
    obs = torch.randn(1, 5).expand(rows, -1)

    actions = policy.act(obs, 0, key=KEY).actions.double()

    correlation = torch.corrcoef(actions.T) - torch.eye(3)
    assert correlation.abs().max() < 4.5 / math.sqrt(rows)


def test_continuous_actions_have_the_mean_and_deviation_of_the_policy(
    tiny: Callable[..., Config],
) -> None:
    spec, rows = HEADS["continuous"], 20_000
    policy = peaked(spec, tiny)
    obs = torch.randn(1, 5).expand(rows, -1)
    mean, std = policy(obs[:1])[0][0].detach(), policy.log_std.detach().exp()

    actions = policy.act(obs, 0, key=KEY).actions

    assert ((actions.mean(0) - mean).abs() < 4.5 * std / math.sqrt(rows)).all()
    assert ((actions.std(0) / std - 1).abs() < 4.5 / math.sqrt(2 * rows)).all()


@pytest.mark.parametrize("head", HEADS)
def test_mode_is_the_likeliest_action(head: str, tiny: Callable[..., Config]) -> None:
    spec = HEADS[head]
    policy = peaked(spec, tiny)
    obs = torch.randn(50, 5)

    mode = policy.mode(obs)

    best = log_probs_by_torch(policy, spec, obs, mode)
    for key in range(5):
        drawn = policy.act(obs, 0, key=key)
        assert mode.shape == drawn.actions.shape
        assert (drawn.log_probs <= best + 1e-5).all()


def test_log_std_starts_where_it_is_set_and_does_not_depend_on_the_state(
    tiny: Callable[..., Config],
) -> None:
    policy = ActorCritic(HEADS["continuous"], tiny(log_std_init=-0.7))

    torch.testing.assert_close(policy.log_std.detach(), torch.full((3,), -0.7))
    assert not hasattr(ActorCritic(VECTOR, tiny()), "log_std")


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_observations_of_any_rank_are_flattened(
    shape: tuple[int, ...], tiny: Callable[..., Config]
) -> None:
    policy = ActorCritic(dataclasses.replace(VECTOR, obs_shape=shape), tiny())
    outputs: tuple[Any, Any] = policy(torch.randn(6, *shape, dtype=torch.float64))

    assert outputs[0].shape == (6, 3)
    assert outputs[0].dtype == torch.float32
