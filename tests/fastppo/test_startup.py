"""What a run loads before its first update, and that it loads no more than it uses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from fastppo.cli import main
assert main(sys.argv[1:]) == 0
print(json.dumps(sorted(sys.modules)))
"""
UNUSED = {
    "wandb", "jinja2", "jsonschema", "triton", "torch._dynamo", "torch._inductor", "tensorboard",
    "scipy.stats", "scipy.optimize",
}  # fmt: skip
"""What `fastppo train` has no use for on a CPU without its options. matplotlib is not among them:
EnvPool 1.2.5 imports it for the pictures of a family of its tasks."""
SIZES = {"num-envs": 2, "num-steps": 8, "total-timesteps": 32, "num-minibatches": 1}
SMALL = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]


def loaded(tmp_path: Path, *words: str) -> set[str]:
    """Every module that a command has loaded when it ends."""
    command = [sys.executable, "-c", PROGRAM, *words, "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_training_loads_no_more_than_it_uses(tmp_path: Path, engine: str) -> None:
    modules = loaded(tmp_path, "train", "CartPole-v1", "--engine", engine, "--quiet", *SMALL)

    assert not modules & UNUSED
    kernels = {name for name in modules if name.startswith("fastppo.kernels.") and "numba" in name}
    assert "fastppo.kernels.gae.numba_cpu" in kernels
    for unused in ("frames", "advantage_stats"):
        assert f"fastppo.kernels.{unused}.numba_cpu" not in kernels
    # each engine has its own way to the kernels
    assert ("fastppo.kernels.mlp.numba_update" in kernels) == (engine == "auto")
    assert ("fastppo.kernels.gather.numba_cpu" in kernels) == (engine == "eager")
    # discrete actions, and few
    assert "fastppo.kernels.loss.numba_vocab" not in kernels
    if engine == "eager":
        assert "fastppo.kernels.loss.numba_categorical" in kernels
        assert "fastppo.kernels.loss.numba_gaussian" not in kernels


def test_the_kernels_are_imported_without_their_compilers() -> None:
    program = "import json, sys, fastppo.kernels.api; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    modules = set(json.loads(done.stdout))

    assert not modules & {"numba", "triton", "torch._dynamo", "torch._inductor", "envpool"}
    backends = {name for name in modules if name.endswith((".numba_cpu", ".triton_gpu"))}
    assert not backends


@pytest.mark.slow
@pytest.mark.parametrize(("env_id", "updates"), [("CartPole-v1", 300), ("Pong-v5", 200)])
def test_memory_stays_where_it_is(env_id: str, updates: int) -> None:
    """Resident size over hundreds of updates, in a process of its own."""
    program = f"""
from fastppo import presets
from fastppo.config import Config
from fastppo.tasks import describe
from fastppo.trainer import Trainer

settings = presets.PRESETS[presets.preset_for(describe({env_id!r}))]
run = Trainer(Config(env_id={env_id!r}, **settings | dict(num_envs=8, num_steps=16,
    num_minibatches=2, total_timesteps=10**8)))
for update in range({updates}):
    run.run_update()
    lines = open("/proc/self/status").read().splitlines()
    print([line.split()[1] for line in lines if line.startswith("VmRSS")][0])
run.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=1200
    )
    sizes = [int(size) for size in done.stdout.split()]
    third = updates // 3
    before, after = min(sizes[third : 2 * third]), min(sizes[2 * third :])

    # KiB; the least of many, for what an update takes and gives back comes and goes
    assert after - before < 4 * 1024
