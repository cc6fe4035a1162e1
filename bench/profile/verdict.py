"""One paragraph from a profile: what bounds the run, and what would move it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastppo.bench.report.numbers import threads

WHAT = {
    "env": "env.step",
    "dispatch": "Python and the calling of operators",
    "compute": "matrix products and convolutions",
    "memory": "copies, gathers, elementwise operators and fused kernels",
    "sync": "the host waiting for an idle GPU",
}
FAR = 0.5
"""Below this part of a ceiling something other than the ceiling is the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was measured, per update where not said otherwise."""

    env_id: str
    on_gpu: bool
    cores: int
    num_envs: int
    num_minibatches: int
    widths: tuple[int, ...] | None
    """Of the MLP; None for the Nature CNN."""
    shared_trunk: bool
    env_threads: int
    torch_threads: int
    faster_engine: str | None
    """What `--engine auto` takes for this run, where that is another than the one profiled."""
    env_steps: float
    """Transitions of one update."""
    wall_s: float
    """Of an update without the profiler."""
    split: Mapping[str, float]
    """Seconds by names of WHAT; they sum to wall_s."""
    operators: float
    """Calls of operators."""
    operator_us: float
    """Mean own time of one, with the profiler's cost in it."""
    launches: float
    syncs: float
    copied_bytes: float
    flops: float
    """Of matrix products and convolutions, twice the multiply-adds."""
    product_s: float
    """Time of all of those, the short ones included."""
    matmul_flops_per_s: float
    copy_bytes_per_s: float
    """Bytes read and written by a plain copy."""
    envpool_rate: float
    """env_steps/s of EnvPool alone, with as many environments and threads."""

    @property
    def env_steps_per_s(self) -> float:
        return self.env_steps / self.wall_s

    def share(self, name: str) -> float:
        """Part of the wall time."""
        return self.split[name] / self.wall_s


def split_time(
    *, wall_s: float, env_s: float, compute_s: float, memory_s: float, sync_s: float
) -> dict[str, float]:
    """Seconds of an update by what they went to; they sum to the wall time.

    Dispatch is what is left: as no operator's time is in it, nor is the cost of profiling one.
    Where noise leaves less than nothing, the other parts but env shrink to fit.
    """
    parts = {"compute": compute_s, "memory": memory_s, "sync": sync_s}
    rest = max(wall_s - env_s, 0.0)
    used = sum(parts.values())
    scale = min(1.0, rest / used) if used > 0 else 1.0
    parts = {name: seconds * scale for name, seconds in parts.items()}
    return {"env": wall_s - rest, "dispatch": max(rest - sum(parts.values()), 0.0), **parts}


def bound(facts: Facts) -> str:
    """The name in WHAT that takes the most time."""
    return max(facts.split, key=lambda name: facts.split[name])


def paragraph(facts: Facts) -> str:
    """What bounds the run, by how much, and what to try, every number measured."""
    name = bound(facts)
    share = facts.share(name)
    sentences: dict[str, Callable[[Facts], str]] = {
        "env": _env, "dispatch": _dispatch, "compute": _compute, "memory": _memory, "sync": _sync
    }  # fmt: skip
    others = sorted((other for other in facts.split if other != name), key=facts.share)[::-1]
    rest = ", ".join(f"{other} {facts.share(other):.0%}" for other in others if facts.split[other])
    return (
        f"{name.capitalize()}-bound: {share:.0%} of the wall time goes to {WHAT[name]}. "
        f"{sentences[name](facts)} Halving that share would gain {1.0 / (1.0 - share / 2.0):.2f}x. "
        f"The rest: {rest}."
    )


def _env(facts: Facts) -> str:
    reached = facts.env_steps / facts.split["env"] / facts.envpool_rate
    text = (
        f"EnvPool alone makes {facts.envpool_rate:,.0f} env_steps/s with {facts.num_envs} "
        f"environments on {threads(facts.env_threads)}, the run {facts.env_steps_per_s:,.0f}, "
        f"{facts.env_steps_per_s / facts.envpool_rate:.0%} of that. "
    )
    if reached < FAR:
        return text + (
            f"In the env phase it makes {reached:.0%} of that: the time is lost around EnvPool "
            "(`VecEnv.step`), or to others on these cores. Try "
            f"{', or '.join([*_free(facts), _more_envs(facts)])} to spread it over more rows."
        )
    useful = min(facts.cores, facts.num_envs)
    tries = [f"{_more_envs(facts)} to spread the cost of a call over more rows"]
    if facts.env_threads < useful:
        tries.insert(0, f"`--env-threads {useful}`, as there are {facts.cores} cores")
    return text + (
        f"Try {', or '.join(tries)} (`fastppo bench env {facts.env_id}` measures both); beyond "
        "that only more or faster cores help."
    )


def _free(facts: Facts) -> list[str]:
    """What costs nothing: the same learning, in less time."""
    if facts.faster_engine is None:
        return []
    return [
        f"`--engine auto`, which takes {facts.faster_engine} here: acting and updating are one "
        "call each, which no profiler sees into"
    ]


def _more_envs(facts: Facts) -> str:
    return f"`--num-envs {4 * facts.num_envs}` (learning changes)"


def _dispatch(facts: Facts) -> str:
    if facts.on_gpu:
        calls = f"{facts.launches / facts.env_steps:.3g} kernel launches"
    else:
        calls = (
            f"{facts.operators / facts.env_steps:.3g} operators of {facts.operator_us:.1f} us "
            "on average"
        )
    tries = [f"{_more_envs(facts)}, so that each call serves more rows"]
    if facts.num_minibatches > 1:
        fewer = facts.num_minibatches // 2
        tries.append(f"`--num-minibatches {fewer}`, larger minibatches (learning changes)")
    if facts.torch_threads > 1 and not facts.on_gpu:
        tries.insert(0, "`--torch-threads 1`, as handing out short work costs more than it saves")
    return f"An env step costs {calls}. Try {', or '.join([*_free(facts), *tries])}."


def _compute(facts: Facts) -> str:
    rate, peak = facts.flops / max(facts.product_s, 1e-12), facts.matmul_flops_per_s
    where = "on the GPU" if facts.on_gpu else f"on {threads(facts.torch_threads)}"
    text = (
        f"They run at {rate / 1e9:,.3g} GFLOP/s; a large matrix product {where} reaches "
        f"{peak / 1e9:,.3g} ({rate / peak:.0%}). "
    )
    tries = []
    if not facts.on_gpu and facts.torch_threads < facts.cores:
        tries.append(f"`--torch-threads {facts.cores}`")
    if rate < FAR * peak and facts.num_minibatches > 1:
        fewer = facts.num_minibatches // 2
        tries.append(f"`--num-minibatches {fewer}`, larger minibatches (learning changes)")
    less = ["fewer `--update-epochs`"]
    if facts.widths is not None:
        less.append(f"`--hidden-sizes` below {' '.join(map(str, facts.widths))}")
    if not facts.shared_trunk:
        less.append("`--shared-trunk`")
    tries.append(f"less work ({', '.join(less)}; learning changes)")
    if not facts.on_gpu:
        tries.append("a GPU, `--device cuda`")
    return f"{text}Try {', or '.join([*_free(facts), *tries])}."


def _memory(facts: Facts) -> str:
    text = (
        f"{facts.copied_bytes / facts.env_steps:,.0f} bytes are copied per env step; a plain copy "
        f"moves {facts.copy_bytes_per_s / 1e9:,.3g} GB/s here. "
    )
    tries = ["fewer `--update-epochs` (learning changes)"]
    if not facts.on_gpu:
        smaller = f"`--num-minibatches {2 * facts.num_minibatches}`"
        tries.insert(0, f"{smaller}, so that a minibatch stays in the cache (learning changes)")
    tries = [*_free(facts), *tries]
    return f"{text}Try {', or '.join(tries)}; the operators above tell which of them it is."


def _sync(facts: Facts) -> str:
    return (
        f"It waits {facts.syncs / facts.env_steps:.3g} times per env step. Try "
        f"{_more_envs(facts)}, so that each wait serves more rows."
    )
