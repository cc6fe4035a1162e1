"""Faults of the machine: one line each, before the work where they can be known before."""

import errno
import os
import resource
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastppo import cgroups, faults, limits, memory, program
from fastppo.config import Config
from fastppo.errors import MachineError
from fastppo.kernels.tools.numba_cache import CacheUnavailable
from fastppo.pools import make_pool
from fastppo.run import session
from fastppo.tasks import spec_of
from fastppo.trainer import Trainer

CPU = torch.device("cpu")
TRAIN = "train CartPole-v1 --num-envs 4 --num-steps 32 --total-timesteps 1280 --device cpu --quiet"


def storage_bytes(*owners: object) -> int:
    """Bytes of all tensors that hang on these objects, each once."""
    found = {}
    for owner in owners:
        for value in vars(owner).values():
            if isinstance(value, torch.Tensor):
                found[value.data_ptr()] = value.untyped_storage().nbytes()
    return sum(found.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_obs": True},
        {"env_id": "Pong-v5", "network": "nature_cnn"},
        {"env_id": "Pendulum-v1", "num_envs": 5, "num_steps": 7, "num_minibatches": 1},
    ],
)
def test_the_need_is_what_a_trainer_allocates(
    changes: dict[str, Any], tiny: Callable[..., Config]
) -> None:
    config = tiny(**changes)
    trainer = Trainer(config)
    rollout, spec = trainer.rollout, spec_of(config)
    owners = [rollout, rollout.store]
    weights = sum(one.nbytes for one in trainer.policy.parameters())
    trainer.close()

    assert memory.rollout_bytes(config, spec) == storage_bytes(*owners)
    assert memory.network_bytes(config, spec) == 4 * weights


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_a_rollout_of_any_size_is_counted_without_being_made(envs: int, steps: int) -> None:
    """Observations of 4 floats and 25 bytes besides, a row of which is one longer."""
    rows = envs * steps
    config = Config(env_id="CartPole-v1", num_envs=envs, num_steps=steps, num_minibatches=1,
                    total_timesteps=rows)  # fmt: skip
    spec = spec_of(config)
    if 16 * (rows + envs) >= 2**62:
        with pytest.raises(MachineError, match="num_envs, num_steps: the rollout needs"):
            memory.check(config, spec, CPU)
    else:
        assert memory.rollout_bytes(config, spec) == pytest.approx(
            20 * (rows + envs) + 37 * rows, rel=0.2
        )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_envs": 100_000, "num_steps": 10_000}, "num_envs, num_steps: the rollout needs"),
        ({"hidden_sizes": (100_000,) * 2}, "hidden_sizes: the network and its optimizer need"),
        ({"num_envs": 2**31, "num_steps": 2**31}, "num_envs, num_steps: the rollout needs"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_anything_is_taken(
    changes: dict[str, Any], told: str, tiny: Callable[..., Config], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limits, "available_bytes", lambda: 2 * 10**10)
    rows = changes.get("num_envs", 4) * changes.get("num_steps", 32)

    with pytest.raises(MachineError, match=told) as caught:
        session.start(tiny(**changes, total_timesteps=rows), tmp_path / "run", quiet=True)

    message = str(caught.value)
    assert message.endswith("are free; lower them, or free memory")
    assert "(18.6 GiB)" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def tree(root: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Asks for the free memory of a machine with 64 GB and these files."""

    def ask(groups: str = "", **files: str) -> int:
        proc = {"meminfo": "MemTotal: 90 kB\nMemAvailable:   64000000 kB\n", "self/cgroup": groups,
                "self/status": "VmSize: 1000 kB\nVmData: 500 kB\n"}  # fmt: skip
        mounted = ((tmp_path / "cgroup", "cgroup2"), (tmp_path / "cgroup/memory", "cgroup"))
        proc["self/mountinfo"] = "".join(
            f"31 23 0:28 / {point} rw - {kind} {kind} rw,memory\n" for point, kind in mounted
        )
        monkeypatch.setattr(cgroups, "PROC", tree(tmp_path / "proc", proc))
        tree(tmp_path / "cgroup", files)
        return limits.available_bytes()

    return ask


def test_free_memory_is_the_machines_where_nothing_limits_it(system: Callable[..., int]) -> None:
    assert system() == 64_000_000 * 1024


@pytest.mark.parametrize("limited", ["a/b", "a", "."])
def test_the_tightest_of_nested_cgroups_counts_and_its_cache_is_free(
    limited: str, system: Callable[..., int]
) -> None:
    files = {
        f"{limited}/memory.max": "5000\n",
        f"{limited}/memory.current": "4000\n",
        f"{limited}/memory.stat": "anon 3400\ninactive_file 600\n",
        "a/b/memory.max" if limited != "a/b" else "x": "max\n",
    }

    assert system("0::/a/b\n", **files) == 1600


def test_version_one_of_cgroups_counts_too(system: Callable[..., int]) -> None:
    files = {
        "memory/docker/x/memory.limit_in_bytes": "7000",
        "memory/docker/x/memory.usage_in_bytes": "6000",
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
        "memory/memory.usage_in_bytes": "6000",
    }

    assert system("5:cpu:/y\n4:memory:/docker/x\n", **files) == 1000


def test_a_limit_of_the_address_space_counts(
    system: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = {resource.RLIMIT_AS: 3_000_000}
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (limited.get(kind, unlimited), unlimited)
    )

    assert system() == 3_000_000 - 1000 * 1024


def test_threads_that_the_system_refuses_are_told_before_a_library_aborts(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, started = threading.Thread.start, 0

    def refuse(self: threading.Thread) -> None:
        nonlocal started
        if started == 2:
            raise RuntimeError("can't start new thread")
        started += 1
        begin(self)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", refuse)

    with pytest.raises(MachineError, match=r"env_threads: \d+ threads are needed and the system s"):
        make_pool(tiny(), [1, 2, 3, 4], num_threads=4)

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "memory: there is none; free some"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 160 bytes."
                      " Error code 12"), "memory: there is none for 160 bytes more"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"),
         "memory: there is none for 2.50 GiB more"),
        (ImportError("x.so: failed to map segment from shared object"), "memory: there is none"),
        (RuntimeError("can't start new thread"), "threads: the system starts no more"),
        (RuntimeError("Resource temporarily unavailable"), "threads: the system starts no more"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x\n"),
         "/tmp/x : no space left on device; make room"),
        (OSError(errno.EMFILE, "Too many open files"), "machine: too many open files"),
        (CacheUnavailable("numba: no place; name one"), "numba: no place; name one"),
    ],
)  # fmt: skip
def test_a_fault_of_the_machine_is_one_line_and_exit_code_3(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert program.run(command, is_process=False) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"fastppo: error: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), OSError(errno.EBADF, "x")])
def test_a_bug_is_no_fault_of_the_machine(error: Exception) -> None:
    assert faults.as_line(error) is None


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("FASTPPO", f"{shlex.quote(sys.executable)} -m fastppo")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=os.environ | variables
    )


@pytest.mark.parametrize(
    ("limit", "variables", "told"),
    [
        ("true", {"NUMBA_CACHE_DIR": "/proc/nowhere"},
         "NUMBA_CACHE_DIR: '/proc/nowhere' cannot be written"),
        pytest.param(
            "true", {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
            "numba: neither", marks=pytest.mark.slow),
        pytest.param(
            "ulimit -f 20", {"NUMBA_CACHE_DIR": "TMP"}, "numba: File too large",
            marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_no_place_for_compiled_kernels_is_told_before_the_run_begins(
    limit: str, variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    variables = {name: text.replace("TMP", str(tmp_path / "c")) for name, text in variables.items()}
    run = tmp_path / "run"
    done = shell(f"{limit}; FASTPPO {TRAIN} --backend numba --run-dir {run}", **variables)

    assert done.returncode == 3
    assert done.stderr.startswith(f"fastppo: error: {told}")
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, setpriv")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_real_limit_of_threads_is_one_line(count: int, tmp_path: Path) -> None:
    """Root is exempt; another user with root's access to files is not."""
    tmp_path.chmod(0o777)
    powers = "+dac_override,+dac_read_search"
    user = f"setpriv --reuid 65534 --clear-groups --inh-caps {powers} --ambient-caps {powers}"
    line = f"ulimit -u {count}; exec FASTPPO {TRAIN} --run-dir {tmp_path / 'run'}"
    line = line.replace("FASTPPO", f"{shlex.quote(sys.executable)} -m fastppo")
    done = shell(f"{user} bash -c {shlex.quote(line)}", MPLCONFIGDIR=str(tmp_path))

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("fastppo: error: ")
    assert "threads are needed and the system starts" in done.stderr
    assert "Traceback" not in done.stderr
