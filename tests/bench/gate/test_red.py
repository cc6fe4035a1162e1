"""Real gates of real faults, each a commit in a clone: `make test-slow PYTEST_ARGS='-k test_red'`.

The slow-downs are sized by what the benchmark costs on this machine now. docs/results.md has the
counts of several sittings.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastppo.bench.gate import caches, rule
from fastppo.bench.gate.own import OwnBenchmarks
from fastppo.bench.gate.revisions import GateSide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(caches.__file__).resolve().parents[2]
ROWS = 1024
"""Env steps of an update of CartPole."""
NS_PER_SPIN = 1.5
"""Of a multiplication and an addition that wait for each other, at 2.7 GHz."""


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r} is there {text.count(old)} times"
    path.write_text(text.replace(old, new))


def slow_kernel(tree: Path, seconds: float) -> None:
    """Adam over 1,700,000 parameters takes so much longer."""
    spins = round(seconds * 1e9 / NS_PER_SPIN / 1_700_000 * 1000)
    edit(
        tree / "kernels" / "adam" / "numba_cpu.py",
        "    if taken:\n        step[0] = np.float32(next_step)\n",
        f"    spin = 1.0\n    for _ in range(size * {spins} // 1000):\n"
        "        spin = spin * 1.0000000001 + 1e-9\n"
        "    if taken and spin > 0.0:\n        step[0] = np.float32(next_step)\n",
    )


def waiting(indent: int, seconds: float) -> str:
    """Lines that keep the processor busy for so long."""
    lines = ["import time", f"end = time.perf_counter() + {seconds}"]
    lines += ["while time.perf_counter() < end:", "    pass"]
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


def slow_update(tree: Path, seconds: float) -> None:
    """An update of CartPole takes so much longer."""
    line = "        config = self.config\n        clip_coef = config.clip_coef_at(update)\n"
    edit(tree / "fastppo" / "mlp_engine.py", line, waiting(8, seconds * ROWS) + line)


def slow_rollout(tree: Path, seconds: float) -> None:
    """A rollout of CartPole takes so much longer."""
    line = "            rollout.open()\n"
    edit(tree / "fastppo" / "trainer.py", line, waiting(12, seconds * ROWS) + line)


def more_memory(tree: Path, _: float) -> None:
    """The rollout holds its observations twice."""
    line = "        self._host_row: Tensor | None = None\n"
    more = "        self.twice = torch.zeros(shape)\n"
    edit(tree / "fastppo" / "observations.py", line, more + line)


def extra_sync(tree: Path, _: float) -> None:
    """Every minibatch reads its loss back."""
    line = "                loss.backward()\n"
    edit(tree / "fastppo" / "ppo.py", line, "                float(loss.detach())\n" + line)


def slow_import(tree: Path, _: float) -> None:
    """A start imports torch._dynamo."""
    line = "class Trainer:\n"
    edit(tree / "fastppo" / "trainer.py", line, "import torch._dynamo\n\n\n" + line)


TIMED: dict[str, Callable[[Path, float], None]] = {
    "kernel/adam/adam[P=1700000]": slow_kernel,
    "update/CartPole-v1": slow_update,
    "collect/CartPole-v1": slow_rollout,
}
COUNTED: dict[str, Callable[[Path, float], None]] = {
    "bytes/CartPole-v1": more_memory,
    "syncs/CartPole-v1": extra_sync,
    "modules/CartPole-v1": slow_import,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone of this repository."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def judged(tree: Path, name: str) -> tuple[int, str]:
    """Exit code and verdict of a gate of the last commit."""
    target = tree.parent / "gate.json"
    # a pattern, in which a bracket would be a set of characters
    only = name.partition("[")[0] + "*" if "[" in name else name
    words = ["gate", "HEAD~1", "--only", only, "--json", str(target)]
    env = os.environ | {"PYTHONPATH": str(tree), "TMPDIR": str(tree.parent)}
    command = [sys.executable, "-P", "-m", "fastppo", *words]
    done = subprocess.run(command, env=env, cwd=tree, text=True, capture_output=True)
    print(done.stdout, done.stderr)
    (entry,) = [e for e in json.loads(target.read_text())["results"] if e["id"] == f"gate/{name}"]
    return done.returncode, entry["gate"]["verdict"]


@pytest.mark.parametrize("percent", [10, 20])
@pytest.mark.parametrize("name", TIMED)
def test_red_where_it_is_slower(name: str, percent: int, tree: Path) -> None:
    base, head = (GateSide(one, one, tree, tree.parent / "cache") for one in ("base", "head"))
    caches.fill(head)
    costs, _ = OwnBenchmarks((base, head)).costs([base, head], [name], seed=0)
    TIMED[name](tree, percent / 100 * costs["head"][name])
    git(tree, "commit", "-qam", f"{name} {percent}% slower")

    assert judged(tree, name) == (1, rule.REGRESSION)


@pytest.mark.parametrize("name", COUNTED)
def test_red_where_it_does_more(name: str, tree: Path) -> None:
    COUNTED[name](tree, 0.0)
    git(tree, "commit", "-qam", f"more {name}")

    assert judged(tree, name) == (1, rule.REGRESSION)
