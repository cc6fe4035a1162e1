"""Actor and critic: observations to a distribution over actions and a value.

Orthogonal weights with the published gains (sqrt 2 inside, 0.01 for the policy head, 1 for the
value head) and zero biases; see docs/details.md.
"""

import math
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastppo.config import Config
from fastppo.errors import UserError
from fastppo.kernels import api
from fastppo.tasks import EnvSpec

MIN_IMAGE = 36  # the Nature CNN's three convolutions leave nothing of a smaller image
MAX_CHANNELS = 16
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Act(NamedTuple):
    """One decision per row: actions ([B], [B, heads] or [B, D]), log-probs [B], values [B]."""

    actions: Tensor
    log_probs: Tensor
    values: Tensor


def init_layer(layer: Layer, gain: float) -> Layer:
    """Orthogonal weights with this gain and zero bias, in place."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Mlp(nn.Sequential):
    """Flattened float observations to features of the last hidden width."""

    def __init__(self, num_inputs: int, hidden_sizes: tuple[int, ...], activation: str) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden_sizes:
            layers.append(init_layer(nn.Linear(num_inputs, width), math.sqrt(2)))
            layers.append(ACTIVATIONS[activation]())
            num_inputs = width
        super().__init__(*layers)
        self.width = num_inputs


class NatureCnn(nn.Module):
    """Mnih et al. (2015): three convolutions and a layer of 512, on images [B, C, H, W].

    uint8 images are scaled to [0, 1]. Images with channels last are turned round first.
    """

    def __init__(self, obs_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.channels_last = obs_shape[0] > MAX_CHANNELS
        height, width, channels = (
            obs_shape if self.channels_last else (*obs_shape[1:], obs_shape[0])
        )
        gain = math.sqrt(2)
        self.convs = nn.Sequential(
            init_layer(nn.Conv2d(channels, 32, 8, stride=4), gain),
            nn.ReLU(),
            init_layer(nn.Conv2d(32, 64, 4, stride=2), gain),
            nn.ReLU(),
            init_layer(nn.Conv2d(64, 64, 3), gain),
            nn.ReLU(),
        )
        for kernel, stride in ((8, 4), (4, 2), (3, 1)):
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.fc = init_layer(nn.Linear(64 * height * width, 512), gain)
        self.width = 512

    def forward(self, obs: Tensor) -> Tensor:
        images = obs.movedim(-1, 1) if self.channels_last else obs
        # a fifth to a quarter faster on a CPU, and no layout kernels on a GPU (docs/performance.md)
        images = images.contiguous(memory_format=torch.channels_last)
        if images.dtype == torch.uint8:
            images = images.float() * (1.0 / 255.0)
        return torch.relu(self.fc(self.convs(images).flatten(1)))


def is_image(obs_shape: tuple[int, ...]) -> bool:
    """Whether the Nature CNN can read this observation."""
    if len(obs_shape) != 3 or min(obs_shape[0], obs_shape[-1]) > MAX_CHANNELS:
        return False
    sides = obs_shape[:2] if obs_shape[0] > MAX_CHANNELS else obs_shape[1:]
    return min(sides) >= MIN_IMAGE


def reads_images(spec: EnvSpec, config: Config) -> bool:
    """Whether the run's network is the Nature CNN, which takes images scaled to [0, 1]."""
    return is_image(spec.obs_shape) and config.network != "mlp"


class ActorCritic(nn.Module):
    """The policy pi(a | s) and the value V(s).

    Args:
        spec: the environment's shapes; decides the head.
        config: network, widths and whether the trunk is shared.

    Raises:
        UserError: the Nature CNN was asked for and the observation is not an image it can read.
    """

    def __init__(self, spec: EnvSpec, config: Config) -> None:
        super().__init__()
        if config.network == "nature_cnn" and not is_image(spec.obs_shape):
            raise UserError(
                f"network: 'nature_cnn' cannot read observations of shape {spec.obs_shape}; use mlp"
            )
        use_cnn = reads_images(spec, config)

        def trunk() -> Mlp | NatureCnn:
            if use_cnn:
                return NatureCnn(spec.obs_shape)
            return Mlp(math.prod(spec.obs_shape), config.hidden_sizes, config.activation)

        self.nvec = spec.nvec
        self.actor_trunk = trunk()
        # a shared trunk is one module under one name: state_dict and parameters hold it once
        self.critic_trunk = None if config.shared_trunk else trunk()
        num_outputs = sum(spec.nvec) if spec.nvec is not None else spec.action_dim
        self.actor_head = init_layer(nn.Linear(self.actor_trunk.width, num_outputs), 0.01)
        self.critic_head = init_layer(nn.Linear(self.actor_trunk.width, 1), 1.0)
        if spec.nvec is None:
            self.log_std = nn.Parameter(torch.full((spec.action_dim,), config.log_std_init))

    @property
    def uses_cnn(self) -> bool:
        return isinstance(self.actor_trunk, NatureCnn)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, sum(nvec)] or means [B, D], and values [B]."""
        obs = obs if obs.dtype == torch.uint8 and self.uses_cnn else obs.float()
        features = self.actor_trunk(obs)
        critic_features = features if self.critic_trunk is None else self.critic_trunk(obs)
        return self.actor_head(features), self.critic_head(critic_features).squeeze(-1)

    @torch.no_grad()
    def act(
        self,
        obs: Tensor,
        step: Tensor | int,
        *,
        key: int,
        first_env: int = 0,
        out: Act | None = None,
        backend: str = "auto",
    ) -> Act:
        """Draws actions; those of environment e at step s are a function of (key, e, s).

        Args:
            obs: [B, ...], row i of environment `first_env + i`.
            step: decisions so far, a number or a 0-d int64 tensor on the device.
            key: from `randomness.act_key`.
            out: what to write, row t of a rollout; None makes new tensors.
        """
        outputs, values = self(obs)
        rows = None if out is None else (out.actions, out.log_probs)
        counter: dict[str, Any] = {"key": key, "first_env": first_env, "backend": backend}
        if self.nvec is None:
            drawn = api.act_gaussian(outputs, self.log_std, step, out=rows, **counter)
        else:
            nvec = self.nvec if len(self.nvec) > 1 else None
            drawn = api.act_categorical(outputs, step, nvec=nvec, out=rows, **counter)
        if out is None:
            return Act(drawn[0], drawn[1], values)
        out.values.copy_(values)
        return out

    @torch.no_grad()
    def mode(self, obs: Tensor) -> Tensor:
        """The most likely action of each row."""
        outputs, _ = self(obs)
        if self.nvec is None:
            return torch.as_tensor(outputs)
        heads = [z.argmax(-1) for z in outputs.split(self.nvec, -1)]
        return heads[0] if len(heads) == 1 else torch.stack(heads, -1)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V(s), [B]."""
        return torch.as_tensor(self(obs)[1])
