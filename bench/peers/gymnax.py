"""PPO and the environment in one compiled JAX program, in the manner of PureJaxRL.

`python -m fastppo.bench.peers.gymnax` in its own venv. The environments are gymnax's: the dynamics
of Gymnasium's, compiled together with the learner, and no EnvPool. An update is one call.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastppo.bench import contract
from fastppo.bench.peers.child import Task, serve
from fastppo.bench.peers.jax_flops import product_flops
from fastppo.config import Config
from fastppo.errors import UserError

SERVED = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
"""Discrete actions, and Gymnasium's dynamics."""
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "elu": jax.nn.elu, "silu": jax.nn.silu}
NOTES = (
    "other environments: gymnax's, of the same dynamics, compiled into one program with the "
    "learner, not EnvPool; XLA chooses its threads; a time-out counts as an end; statistics of "
    "observations and rewards move per step"
)
Parameters = dict[str, list[tuple[jax.Array, jax.Array]]]


class Moments(NamedTuple):
    """Running mean and variance, as Gymnasium's wrappers keep them."""

    mean: jax.Array
    var: jax.Array
    count: jax.Array

    @staticmethod
    def empty(shape: tuple[int, ...]) -> "Moments":
        """Of nothing yet."""
        return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.asarray(1e-4))

    def add(self, batch: jax.Array) -> "Moments":
        """With the rows [N, ...] of a batch."""
        mean, var, count = batch.mean(0), batch.var(0), batch.shape[0]
        total = self.count + count
        delta = mean - self.mean
        squares = self.var * self.count + var * count + delta**2 * self.count * count / total
        return Moments(self.mean + delta * count / total, squares / total, total)


class State(NamedTuple):
    """Everything that one update hands to the next."""

    parameters: Parameters
    adam: Any
    envs: Any
    obs: jax.Array  # [N, ...], raw
    obs_moments: Moments
    return_moments: Moments
    discounted: jax.Array  # [N]
    returns: jax.Array  # [N], raw, of the games that go on
    key: jax.Array
    update: jax.Array


class Row(NamedTuple):
    """A step of all environments; of a rollout, [T, N, ...] each."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    game: jax.Array  # raw return of the game that ended here


def make_parameters(config: Config, sizes: tuple[int, int], key: jax.Array) -> Parameters:
    """Two trunks, orthogonal weights: gain sqrt(2), of the policy's head 0.01, the value's 1."""
    obs_size, actions = sizes
    made: Parameters = {}
    for name, out, gain in (("policy", actions, 0.01), ("value", 1, 1.0)):
        widths = (obs_size, *config.hidden_sizes, out)
        layers: list[tuple[jax.Array, jax.Array]] = []
        for fan_in, fan_out in pairwise(widths):
            key, drawn = jax.random.split(key)
            last = len(layers) == len(config.hidden_sizes)
            weight = jax.nn.initializers.orthogonal(gain if last else 2**0.5)
            layers.append((weight(drawn, (fan_in, fan_out)), jnp.zeros(fan_out)))
        made[name] = layers
    return made


def forward(
    parameters: Parameters, obs: jax.Array, activation: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of all actions, and values."""

    def read(layers: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
        hidden = obs
        for weight, bias in layers[:-1]:
            hidden = activation(hidden @ weight + bias)
        weight, bias = layers[-1]
        return hidden @ weight + bias

    return jax.nn.log_softmax(read(parameters["policy"])), read(parameters["value"])[..., 0]


def make_optimizer(config: Config) -> Any:
    """Clip and Adam; the step size is set by every update."""
    clip = optax.clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else None
    adam = optax.scale_by_adam(eps=config.adam_eps)
    return adam if clip is None else optax.chain(clip, adam)


class Program:
    """An update, for JAX to compile.

    Args:
        env, env_params: as `gymnax.make` gives them.
    """

    def __init__(self, config: Config, env: Any, env_params: Any) -> None:
        self.config, self.env, self.env_params = config, env, env_params
        self.read = partial(forward, activation=ACTIVATIONS[config.activation])
        self.optimizer = make_optimizer(config)

    def update(self, state: State) -> Any:
        """The next state, the number of games that ended, and the sum of their returns."""
        config = self.config
        state, rows = jax.lax.scan(self._step, state, None, config.num_steps)
        last = self.read(state.parameters, self._normalised(state.obs, state.obs_moments))[1]
        advantage = self._advantages(rows, last)
        whole = (rows, advantage, advantage + rows.value)
        whole = jax.tree.map(lambda x: x.reshape(config.batch_size, *x.shape[2:]), whole)
        left = 1.0 - state.update / config.num_updates
        rate = config.learning_rate * (left if config.anneal_lr else 1.0)
        clip = config.clip_coef * (left if config.anneal_clip else 1.0)

        def minibatch(carry: tuple[Parameters, Any], rows: jax.Array) -> Any:
            parameters, adam = carry
            batch = jax.tree.map(lambda x: x[rows], whole)
            gradient = jax.grad(self._loss)(parameters, batch, clip)
            change, adam = self.optimizer.update(gradient, adam)
            stepped = jax.tree.map(lambda p, d: p - rate * d, parameters, change)
            return (stepped, adam), None

        def epoch(carry: tuple[Parameters, Any], key: jax.Array) -> Any:
            order = jax.random.permutation(key, config.batch_size)
            parts = order.reshape(config.num_minibatches, config.minibatch_size)
            return jax.lax.scan(minibatch, carry, parts)

        key, shuffle = jax.random.split(state.key)
        keys = jax.random.split(shuffle, config.update_epochs)
        (parameters, adam), _ = jax.lax.scan(epoch, (state.parameters, state.adam), keys)
        after = state._replace(parameters=parameters, adam=adam, key=key, update=state.update + 1)
        return after, rows.done.sum(), rows.game.sum()

    def _normalised(self, obs: jax.Array, moments: Moments) -> jax.Array:
        if not self.config.norm_obs:
            return obs
        scaled = (obs - moments.mean) / jnp.sqrt(moments.var + 1e-8)
        return jnp.clip(scaled, -self.config.obs_clip, self.config.obs_clip)

    def _step(self, state: State, _: None) -> tuple[State, Row]:
        config = self.config
        key, act_key, env_key = jax.random.split(state.key, 3)
        seen = state.obs_moments.add(state.obs) if config.norm_obs else state.obs_moments
        obs = self._normalised(state.obs, seen)
        log_probs, value = self.read(state.parameters, obs)
        action = jax.random.categorical(act_key, log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]
        keys = jax.random.split(env_key, config.num_envs)
        after, envs, reward, done, _info = jax.vmap(self.env.step, (0, 0, 0, None))(
            keys, state.envs, action, self.env_params
        )
        returns = state.returns + reward
        discounted, return_moments = state.discounted * config.gamma + reward, state.return_moments
        learned = jnp.sign(reward) if config.sign_reward else reward
        if config.norm_reward:
            return_moments = return_moments.add(discounted)
            learned = reward / jnp.sqrt(return_moments.var + 1e-8)
            learned = jnp.clip(learned, -config.reward_clip, config.reward_clip)
        alive = 1.0 - done
        row = Row(obs, action, log_prob, value, learned, done, returns * done)
        kept = state._replace(
            envs=envs, obs=after, obs_moments=seen, return_moments=return_moments,
            discounted=discounted * alive, returns=returns * alive, key=key,
        )  # fmt: skip
        return kept, row

    def _advantages(self, rows: Row, last: jax.Array) -> jax.Array:
        gamma, decay = self.config.gamma, self.config.gamma * self.config.gae_lambda

        def back(carry: tuple[jax.Array, jax.Array], row: Row) -> Any:
            running, after = carry
            alive = 1.0 - row.done
            running = row.reward + gamma * after * alive - row.value + decay * alive * running
            return (running, row.value), running

        found: jax.Array = jax.lax.scan(back, (jnp.zeros_like(last), last), rows, reverse=True)[1]
        return found

    def _loss(
        self, parameters: Parameters, batch: tuple[Row, jax.Array, jax.Array], clip: Any
    ) -> Any:
        config = self.config
        rows, advantage, target = batch
        log_probs, value = self.read(parameters, rows.obs)
        log_prob = jnp.take_along_axis(log_probs, rows.action[:, None], 1)[:, 0]
        if config.norm_adv:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = jnp.exp(log_prob - rows.log_prob)
        clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
        policy = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        error = (value - target) ** 2
        if config.clip_vloss:
            near = rows.value + jnp.clip(value - rows.value, -clip, clip)
            error = jnp.maximum(error, (near - target) ** 2)
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return policy + config.vf_coef * 0.5 * error.mean() - config.ent_coef * entropy


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    config = task.config
    if config.env_id not in SERVED:
        known = ", ".join(SERVED)
        raise UserError(f"env_id: {config.env_id!r} is not served by gymnax here; {known} are")
    unknown = ("dual_clip", "target_kl", "max_episode_steps", "shared_trunk")
    task.refuse("gymnax", *unknown, device="cpu")
    env, env_params = gymnax.make(config.env_id)
    sizes = int(np.prod(task.spec.obs_shape)), env.num_actions
    keys = jax.random.split(jax.random.PRNGKey(config.seed), 3)
    parameters = make_parameters(config, sizes, keys[0])
    obs, envs = jax.vmap(env.reset, (0, None))(
        jax.random.split(keys[1], config.num_envs), env_params
    )
    # an array each: the program overwrites what it is handed
    state = State(
        parameters=parameters,
        adam=make_optimizer(config).init(parameters),
        envs=envs,
        obs=obs,
        obs_moments=Moments.empty(obs.shape[1:]),
        return_moments=Moments.empty(()),
        discounted=jnp.zeros(config.num_envs),
        returns=jnp.zeros(config.num_envs),
        key=keys[2],
        update=jnp.asarray(0),
    )
    program = Program(config, env, env_params)
    forward_pass = jax.make_jaxpr(program.read)(parameters, obs[:1])
    work = task.work(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        forward_flops=product_flops(forward_pass.jaxpr),
    )
    compiled = jax.jit(program.update, donate_argnums=0).lower(state).compile()
    report.ready(work, task.info(version("gymnax"), NOTES))
    for _ in range(config.num_updates):
        state, games, total = compiled(state)
        count = int(games)  # waits for the update
        mean = float(total) / count if count else None
        report.update(env_steps=config.batch_size, episodes=count, return_mean=mean)


if __name__ == "__main__":
    serve(train, tunes_torch=False)
