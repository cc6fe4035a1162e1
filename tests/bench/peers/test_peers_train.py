"""Each installed peer, started as `fastppo bench train` starts it. Skipped where none is."""

import json
import os
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from fastppo.bench import recipes
from fastppo.bench.contract import manifest
from fastppo.bench.peers import registry
from fastppo.config import Config
from fastppo.policy import ActorCritic
from fastppo.tasks import spec_of

pytestmark = pytest.mark.slow

UPDATES = 3
TASKS = {"CartPole-v1": "8x128", "Pendulum-v1": "8x64", "HalfCheetah-v4": "8x64", "Pong-v5": "8x32"}
# What a library does differently on images, and says.
ON_IMAGES = {
    "sbx": {"parameters", "forward_flops", "network"},
    "cleanrl": {"trains_on_reset_rows"},
}


# Whose environments are its own.
SERVES = {"gymnax": {"CartPole-v1"}}


@pytest.fixture(params=registry.names())
def peer(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name not in registry.installed():
        pytest.skip(f"{name} is not installed: fastppo bench peers install {name}")
    return name


def run_peer(name: str, config: Config) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, events and stderr of a peer that trains to the config's end."""
    request = {"env_id": config.env_id, "seed": config.seed, "device": "cpu",
               "config": config.to_dict(), "env_threads": 1, "torch_threads": [1]}  # fmt: skip
    environ = os.environ | {"FASTPPO_BENCH": json.dumps(request), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        registry.command(name), env=environ, capture_output=True, text=True, timeout=250
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]  # nothing else is printed
    return done.returncode, events, done.stderr


def brief(env_id: str, **settings: Any) -> Config:
    config = replace(recipes.config_for(env_id, TASKS[env_id]), **settings)
    return recipes.with_steps(config, UPDATES * config.batch_size)


@pytest.mark.parametrize("env_id", TASKS)
def test_a_peer_does_the_work_it_is_asked_for_and_says_where_it_differs(
    peer: str, env_id: str
) -> None:
    config = brief(env_id)
    policy = ActorCritic(spec_of(config), config)

    code, events, stderr = run_peer(peer, config)

    if env_id not in SERVES.get(peer, TASKS):
        assert code == 3
        assert events[0]["message"].startswith(f"env_id: '{env_id}' is not served by {peer}")
        return
    assert code == 0, stderr[-2000:]
    assert [event["event"] for event in events] == ["ready"] + ["update"] * UPDATES
    assert [event["env_steps"] for event in events[1:]] == [config.batch_size] * UPDATES
    expected = manifest.of_trainer(config, spec_of(config), policy, policy)
    work = events[0]["work"]
    differs = {field for field in expected if work[field] != expected[field]}
    assert differs == (ON_IMAGES.get(peer, set()) if env_id == "Pong-v5" else set())
    if env_id == "CartPole-v1":
        assert events[1]["episodes"] > 10
        assert 10 < events[1]["return_mean"] < 40  # of a policy that has learned nothing yet


@pytest.mark.parametrize(
    "settings", [{"shared_trunk": True}, {"clip_vloss": True, "activation": "relu"}]
)
def test_a_peer_takes_other_settings_of_the_same_work(peer: str, settings: dict[str, Any]) -> None:
    config = brief("CartPole-v1", norm_adv=False, max_grad_norm=0.0, anneal_lr=False, **settings)
    policy = ActorCritic(spec_of(config), config)

    code, events, stderr = run_peer(peer, config)

    if peer == "gymnax" and config.shared_trunk:
        assert code == 3
        assert events[0]["message"].startswith("shared_trunk: True is not to be had from gymnax")
        return
    assert code == 0, stderr[-2000:]
    work = events[0]["work"]
    expected = manifest.of_trainer(config, spec_of(config), policy, policy)
    same = [work[field] == expected[field] for field in ("network", "parameters")]
    if (peer == "sbx" and config.shared_trunk) or peer == "cleanrl":
        assert work["network"] == "mlp 64-64 tanh, two trunks"
        assert work["parameters"] == 9155
    else:
        assert all(same)


def test_a_peer_refuses_in_one_line_what_it_cannot_do(peer: str) -> None:
    code, events, _ = run_peer(peer, brief("CartPole-v1", target_kl=0.01))

    assert code == 3
    assert [event["event"] for event in events] == ["error"]
    assert events[0]["message"].startswith("target_kl: 0.01 is not to be had from ")


def test_a_peer_learns(peer: str) -> None:
    config = recipes.with_steps(recipes.config_for("CartPole-v1", "8x128"), 60 * 1024)

    code, events, stderr = run_peer(peer, config)

    assert code == 0, stderr[-2000:]
    returns = [event["return_mean"] for event in events[1:] if event["episodes"]]
    assert returns[0] < 40
    assert sum(returns[-5:]) / 5 > 150
