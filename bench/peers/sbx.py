"""SBX's PPO (Stable-Baselines3 in JAX) on EnvPool: `python -m fastppo.bench.peers.sbx`."""

import math
from typing import Any

import jax
import numpy as np
import sbx
from flax import linen

from fastppo.bench import contract
from fastppo.bench.peers.child import Task, serve
from fastppo.bench.peers.jax_flops import product_flops
from fastppo.bench.peers.sb3 import learn, make_vec_env, schedule

ACTIVATIONS = {"tanh": linen.tanh, "relu": linen.relu, "elu": linen.elu, "silu": linen.silu}
NOTES = (
    "one jitted step per minibatch; XLA chooses its threads; actor and critic are two networks "
    "with an Adam and a gradient-norm clip each; no value clipping (clip_vloss); hidden layers "
    "start from LeCun's weights; "
    "VecNormalize moves its statistics per step"
)


def make_model(task: Task, vec_env: Any) -> Any:
    """The library's PPO on these environments."""
    config = task.config
    kwargs: dict[str, Any] = {
        "log_std_init": config.log_std_init,
        "ortho_init": True,
        "optimizer_kwargs": {"eps": config.adam_eps},
    }
    if not task.reads_images:
        widths = list(config.hidden_sizes)
        kwargs["net_arch"] = {"pi": widths, "vf": widths}
        kwargs["activation_fn"] = ACTIVATIONS[config.activation]
    return sbx.PPO(
        "CnnPolicy" if task.reads_images else "MlpPolicy",
        vec_env,
        learning_rate=schedule(task, config.learning_rate, anneal=config.anneal_lr),
        n_steps=config.num_steps,
        batch_size=config.minibatch_size,
        n_epochs=config.update_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=schedule(task, config.clip_coef, anneal=config.anneal_clip),
        normalize_advantage=config.norm_adv,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef / 2,  # its value loss has no factor of one half
        max_grad_norm=config.max_grad_norm or math.inf,
        policy_kwargs=kwargs,
        seed=config.seed,
    )


def forward_flops(policy: Any, obs: Any) -> int:
    """Of one observation, [1, ...], through actor and critic."""
    states = policy.actor_state, policy.vf_state
    program = jax.make_jaxpr(policy._predict_all)(*states, obs, jax.random.PRNGKey(0))
    return product_flops(program.jaxpr)


def train(task: Task, report: contract.Reporter) -> None:
    """Trains to the config's total_timesteps."""
    config = task.config
    task.refuse("SBX", "dual_clip", "target_kl", device="cpu")
    env = task.make_env(norm_obs=False, norm_reward=False)
    model = make_model(task, make_vec_env(task, env))
    parameters = sum(
        leaf.size
        for state in (model.policy.actor_state, model.policy.vf_state)
        for leaf in jax.tree_util.tree_leaves(state.params)
    )
    # images: two CNNs, each copied onto the other after every step; MLPs share nothing
    shares = "two tied trunks" if task.reads_images else "two trunks"
    network = contract.network(config.to_dict() | {"shared_trunk": False}, image=task.reads_images)
    work = task.work(
        parameters=int(parameters),
        forward_flops=forward_flops(
            model.policy, np.zeros((1, *task.spec.obs_shape), task.spec.obs_dtype)
        ),
        network=network.replace("two trunks", shares),
    )
    report.ready(work, task.info(sbx.__version__, NOTES))
    learn(model, task, report, env)


if __name__ == "__main__":
    serve(train, tunes_torch=False)
