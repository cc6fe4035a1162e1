"""What people type who come from other libraries, and what it is called here."""

import difflib
from collections.abc import Iterable

SETTINGS = {
    # CleanRL, LeanRL
    "batch_size": "num_minibatches, parts of the num_envs * num_steps rows of a rollout",
    "minibatch_size": "num_minibatches, parts of the num_envs * num_steps rows of a rollout",
    "gym_id": "env_id",
    "num_iterations": "total_timesteps",
    "wandb_project_name": "wandb_project",
    "exp_name": "wandb_name",
    # Stable-Baselines3, its zoo
    "n_envs": "num_envs",
    "n_steps": "num_steps",
    "n_epochs": "update_epochs",
    "n_timesteps": "total_timesteps",
    "clip_range": "clip_coef",
    "clip_range_vf": "clip_vloss",
    "normalize_advantage": "norm_adv",
    "net_arch": "hidden_sizes",
    "activation_fn": "activation",
    "eval_freq": "eval_interval",
    "n_eval_episodes": "eval_episodes",
    "save_freq": "checkpoint_interval",
    "tensorboard_log": "tensorboard",
    # rl_games, TorchRL, PufferLib, papers
    "num_actors": "num_envs",
    "horizon": "num_steps",
    "horizon_length": "num_steps",
    "bptt_horizon": "num_steps",
    "mini_epochs": "update_epochs",
    "epochs": "update_epochs",
    "e_clip": "clip_coef",
    "clip": "clip_coef",
    "clip_epsilon": "clip_coef",
    "clip_eps": "clip_coef",
    "lr": "learning_rate",
    "tau": "gae_lambda",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "lmbda": "gae_lambda",
    "discount": "gamma",
    "grad_norm": "max_grad_norm",
    "entropy_coef": "ent_coef",
    "ent": "ent_coef",
    "critic_coef": "vf_coef",
    "vf": "vf_coef",
    "kl_threshold": "target_kl",
    "max_kl": "target_kl",
    "normalize_input": "norm_obs",
    "normalize_obs": "norm_obs",
    "total_steps": "total_timesteps",
    "timesteps": "total_timesteps",
    "hidden": "hidden_sizes",
    "hidden_size": "hidden_sizes",
    "sticky_actions": "repeat_action_probability",
}
"""Settings; a value of several words begins with the setting."""
FLAGS = {
    "track": "wandb online",
    "env": "ENV_ID, the first word after the command",
    "env_id": "ENV_ID, the first word after the command",
    "gym_id": "ENV_ID, the first word after the command",
    "task": "ENV_ID, the first word after the command",
    "cuda": "device cuda",
    "no_cuda": "device cpu",
    "capture_video": "video of `fastppo eval RUN_DIR`",
    "logdir": "run_dir",
    "log_dir": "run_dir",
    "save_dir": "run_dir",
    "out": "run_dir",
    "save_model": "checkpoint_interval; a checkpoint is always written at the end",
}
"""Of the command line alone."""


def flag_answer(flag: str) -> str | None:
    """What a flag is here, for the end of a sentence; None for one that nobody knows."""
    name = flag.lstrip("-").replace("-", "_")
    found = FLAGS.get(name) or SETTINGS.get(name)
    if found is None:
        return None
    first, _, rest = found.partition(" ")
    if first.startswith("ENV_ID"):
        return found
    end = "," if first.endswith(",") else ";" if first.endswith(";") else ""
    dashed = f"--{first.rstrip(',;').replace('_', '-')}"
    return f"{dashed}{end} {rest}".strip()


def setting_answer(name: str, known: Iterable[str]) -> str:
    """What is said of a setting that is none: what it is here, or what is near."""
    if name in SETTINGS:
        return f"here it is {SETTINGS[name]}"
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"is no setting; did you mean {' or '.join(near)}?" if near else "is no setting"
