"""The Python API does what the commands do, and docs/python.md runs as it stands."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import envpool
import numpy as np
import pytest
import torch

import fastppo
from fastppo.errors import UserError
from fastppo.run.rundir import RunDir

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "num_envs": 2, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 96,
}  # fmt: skip


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory: pytest.TempPathFactory) -> fastppo.Run:
    folder = tmp_path_factory.mktemp("library") / "cheetah"
    return fastppo.train("HalfCheetah-v4", run_dir=folder, **SMALL)


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = re.compile("time|_per_s")
    return [{k: v for k, v in row.items() if not timed.search(k)} for row in rows]


def test_it_trains_what_the_command_trains(
    tmp_path: Path, command: Callable[..., Any], cheetah: fastppo.Run
) -> None:
    flags = [word for k, v in SMALL.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    assert command("train", "HalfCheetah-v4", "--run-dir", tmp_path / "run", *flags).code == 0

    ours, theirs = cheetah, fastppo.Run(tmp_path / "run")
    assert without_clock(ours.metrics()) == without_clock(theirs.metrics())
    assert ours.config == theirs.config


def test_every_update_is_seen(tmp_path: Path) -> None:
    seen: list[Any] = []
    run = fastppo.train("CartPole-v1", run_dir=tmp_path / "run", on_update=seen.append, **SMALL)

    assert json.loads(json.dumps(seen)) == run.metrics()


def test_an_exception_in_the_callback_leaves_a_checkpoint(tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> None:
        raise ZeroDivisionError(row["update"])

    with pytest.raises(ZeroDivisionError, match="1"):
        fastppo.train("CartPole-v1", run_dir=tmp_path / "run", on_update=fail, **SMALL)

    assert fastppo.load_policy(tmp_path / "run").update == 1


def test_it_trains_in_a_thread(tmp_path: Path) -> None:
    found: list[fastppo.Run] = []

    def work() -> None:
        found.append(fastppo.train("CartPole-v1", run_dir=tmp_path / "run", **SMALL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert len(found[0].metrics()) == 3


def test_evaluate_is_the_command(cheetah: fastppo.Run, command: Callable[..., Any]) -> None:
    outcome = command("eval", cheetah.path, "--episodes", "2", "--json")

    assert fastppo.evaluate(cheetah.path, episodes=2) == json.loads(outcome.out)


def test_a_policy_plays_as_evaluate_does(cheetah: fastppo.Run) -> None:
    """Raw observations in, what `step` takes out: the same return to the last bit."""
    from fastppo import randomness

    policy = fastppo.load_policy(cheetah.path)
    [seed] = randomness.env_seeds(1, range(1), purpose="eval")
    pool = envpool.make("HalfCheetah-v4", env_type="gymnasium", num_envs=1, env_seed=[seed])
    obs, _ = pool.reset()
    total = 0.0
    for _ in range(1000):
        obs, reward, *_ = pool.step(policy(obs.astype(np.float32)).astype(np.float64))
        total += float(reward[0])
    pool.close()

    assert total == pytest.approx(fastppo.evaluate(cheetah.path, episodes=1)["mean_return"])


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_policy_takes_one_or_many_of_numpy_or_torch(
    cheetah: fastppo.Run, deterministic: bool
) -> None:
    obs = np.random.default_rng(0).normal(0, 3, (4, 17)).astype(np.float32)

    def policy() -> fastppo.SavedPolicy:
        return fastppo.load_policy(cheetah.path, seed=3)

    many = policy()(obs, deterministic=deterministic)
    assert many.shape == (4, 6)
    assert np.abs(many).max() <= 1
    tensors = policy()(torch.from_numpy(obs), deterministic=deterministic)
    assert np.array_equal(tensors.numpy(), many)
    one = policy()(obs[0], deterministic=deterministic)
    assert one.shape == (6,)
    np.testing.assert_allclose(one, many[0], atol=1e-6)
    assert policy().values(obs).shape == (4,)
    assert policy().values(obs[1]) == pytest.approx(policy().values(obs)[1], abs=1e-5)


def test_draws_differ_from_step_to_step_and_by_seed(cheetah: fastppo.Run) -> None:
    obs = np.zeros((1, 17), np.float32)
    policies = [fastppo.load_policy(cheetah.path, seed=seed) for seed in (1, 1, 2)]
    drawn = [[p(obs, deterministic=False).tolist() for _ in range(3)] for p in policies]

    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] != drawn[0][1] != drawn[0][2]


def test_observations_of_another_shape_are_refused(cheetah: fastppo.Run) -> None:
    with pytest.raises(ValueError, match=r"obs: shape \(5,\) must be \(17,\) or \(N, 17\)"):
        fastppo.load_policy(cheetah.path)(np.zeros(5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastppo.train(), "env_id: missing; name an EnvPool task"),
        (lambda: fastppo.train("CartPole-v1", lr=1), "lr: here it is learning_rate"),
        (lambda: fastppo.train("CartPole-v1", n_steps=1), "n_steps: here it is num_steps"),
        (lambda: fastppo.train("CartPole-v1", num_env=1), "num_env: is no setting; did you mean "),
        (lambda: fastppo.train("CartPole-v1", xyzzy=1), "xyzzy: is no setting"),
        (lambda: fastppo.train("CartPole-v1", gamma=2), r"gamma: 2 must be in \[0, 1\]"),
        (lambda: fastppo.train("CartPole-v1", seed="1"), "seed: '1' must be int"),
        (lambda: fastppo.train("CartPole-v1", preset="x"), "preset: 'x' is not one of auto, cl"),
        (lambda: fastppo.train("CartPole-v9"), "is no EnvPool task; did you mean CartPole-v1"),
        (lambda: fastppo.train(resume="gone"), "run_dir: gone holds no run"),
        (lambda: fastppo.load_policy("gone"), "run_dir: gone holds no run"),
        (lambda: fastppo.evaluate("gone"), "run_dir: gone holds no run"),
        (lambda: fastppo.Run("gone"), "run_dir: gone holds no run"),
    ],
)
def test_a_mistake_is_one_line(call: Any, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        call()

    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_widths_will_do(tmp_path: Path) -> None:
    run = fastppo.train("CartPole-v1", run_dir=tmp_path / "r", hidden_sizes=[8], **SMALL)

    assert run.config.hidden_sizes == (8,)


def test_a_damaged_record_of_the_task_is_one_line(cheetah: fastppo.Run, tmp_path: Path) -> None:
    record = json.loads((cheetah.path / "config.json").read_text())
    parts: list[Any] = [{"spec": {}}, {"actions": {}}, 3]
    for part in parts:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        changed = record["task"] | part if isinstance(part, dict) else part
        (folder / "config.json").write_text(json.dumps(record | {"task": changed}))
        with pytest.raises(UserError, match=r"config\.json cannot be read"):
            RunDir.open(folder).read_task()


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        ("CartPole-v1", {}),
        ("HalfCheetah-v4", {}),
        ("Pong-v5", {"num_steps": 4, "total_timesteps": 8, "num_minibatches": 1}),
    ],
)
def test_an_exported_policy_computes_the_same(
    env_id: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run = fastppo.train(env_id, run_dir=tmp_path / "run", **SMALL | settings)
    policy = run.policy()
    path = policy.export(tmp_path / "policy.onnx")
    obs: Any = np.random.default_rng(0).normal(0, 5, (7, *policy.spec.obs_shape))
    obs = obs.astype(policy.spec.obs_dtype)

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (obs, obs[:1]):
        action, value = session.run(None, {"obs": rows})
        np.testing.assert_allclose(action, policy(rows), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(value, policy.values(rows), rtol=1e-4, atol=1e-4)


def test_the_package_itself_imports_nothing() -> None:
    """At once, and every name of it can be had."""
    program = (
        "import sys, fastppo; print(sorted(m for m in sys.modules if m.startswith('fastppo') or "
        "m in ('torch', 'numpy', 'envpool', 'tyro')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout == "['fastppo']\n"
    for name in vars(fastppo)["__all__"]:
        assert getattr(fastppo, name) is not None
        assert name in dir(fastppo)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        fastppo.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_page_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))

    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )

    assert done.returncode == 0, done.stderr
    assert len(blocks) == 5
    assert (tmp_path / "policy.onnx").is_file()
