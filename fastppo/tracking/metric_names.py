"""What a metric is called in the mirrors: by its name here, or by that of CleanRL or SB3.

For runs of different libraries to overlay in one chart. metrics.jsonl keeps our names. Standard
library only: the process that owns W&B imports it.
"""

from typing import Any

CLEANRL = {
    "episode/return": "charts/episodic_return",
    "episode/length": "charts/episodic_length",
    "learning_rate": "charts/learning_rate",
    "loss/policy_loss": "losses/policy_loss",
    "loss/value_loss": "losses/value_loss",
    "loss/entropy": "losses/entropy",
    "loss/approx_kl": "losses/approx_kl",
    "loss/old_approx_kl": "losses/old_approx_kl",
    "loss/clip_frac": "losses/clipfrac",
    "loss/explained_variance": "losses/explained_variance",
}
SB3 = {
    "episode/return": "rollout/ep_rew_mean",
    "episode/length": "rollout/ep_len_mean",
    "update": "time/iterations",
    "wall_time": "time/time_elapsed",
    "learning_rate": "train/learning_rate",
    "loss/loss": "train/loss",
    "loss/policy_loss": "train/policy_gradient_loss",
    "loss/value_loss": "train/value_loss",
    "loss/entropy": "train/entropy_loss",
    "loss/approx_kl": "train/approx_kl",
    "loss/clip_frac": "train/clip_fraction",
    "loss/explained_variance": "train/explained_variance",
    "eval/mean_return": "eval/mean_reward",
    "eval/mean_length": "eval/mean_ep_length",
}
SB3_SCALE = {"loss/value_loss": 2.0, "loss/entropy": -1.0}
"""SB3 has the mean square without the half, and the entropy as a loss."""
TIMES = tuple(
    f"time/{part}"
    for part in ("env", "policy", "copy", "gae", "update", "other", "total", "logging")
)
NAMES = {"fastppo": {}, "cleanrl": CLEANRL, "sb3": SB3}


def mirrored(row: dict[str, Any], names: str) -> dict[str, Any]:
    """One update's metrics under the names of `fastppo`, `cleanrl` or `sb3`.

    What they have no name for keeps ours; `global_step` stays, for it is the axis everywhere.
    """
    if names == "fastppo":
        return row
    table = NAMES[names]
    scale = SB3_SCALE if names == "sb3" else {}
    found = {}
    for name, value in row.items():
        factor = scale.get(name, 1.0)
        found[table.get(name, name)] = value if factor == 1.0 or value is None else factor * value
    if row.get("wall_time"):  # both count from the start of the run
        rate = row["global_step"] / row["wall_time"]
        found["charts/SPS" if names == "cleanrl" else "time/fps"] = int(rate)
    return found


def axes(names: str, ours: dict[str, str | None]) -> dict[str, str | None]:
    """The step metric of every name; `ours` are those of fastppo's names."""
    if names == "fastppo":
        return ours
    others = {"cleanrl": ("charts/*", "losses/*"), "sb3": ("rollout/*", "train/*")}[names]
    found = ours | dict.fromkeys(others, "global_step")
    if names == "sb3":
        # time/* would take its own axis in, and a pattern beside a name leaves the axis to chance
        times = dict.fromkeys(TIMES, found.pop("time/*")) | {"time/fps": "global_step"}
        found = {
            SB3.get(name, name): None if axis is None else SB3.get(axis, axis)
            for name, axis in (found | times).items()
        }
    return found
