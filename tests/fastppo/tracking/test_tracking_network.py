"""Offline, nothing leaves the machine: neither from Python nor from W&B's own process."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastppo.bench.track import wandb_log

TRAIN = """
import sys
from fastppo.cli import main
sys.exit(main(["train", "CartPole-v1", "--quiet", "--run-dir", sys.argv[1], "--num-envs", "4",
    "--num-steps", "32", "--total-timesteps", "256", "--device", "cpu", "--backend", "torch",
    "--wandb", "auto", "--tensorboard"]))
"""
RECORD = """
import sys
from pathlib import Path
from fastppo.tracking import wandb_names
from fastppo.tracking.wandb_process import WandbProcess
run = Path(sys.argv[1])
run.mkdir()
rows = run / "metrics.jsonl"
rows.write_text('{"update": 1}\\n{"update": 2}\\n')
init = {"id": "abc", "project": "tests", "name": "n", "config": {}, "mode": "offline",
        "dir": str(run)}
process = WandbProcess(run / "wandb")
process.send({"op": "start", "init": init, "settings": wandb_names.settings(30.0),
              "axes": wandb_names.AXES, "follow": str(rows), "threshold": None, "marker": {}})
process.send({"op": "artifact", "name": "a", "type": "model", "files": [str(rows)],
              "aliases": [], "metadata": {}, "use": True})
process.send({"op": "finish", "exit_code": 0, "summary": {}})
sys.exit(not (process.wait_finished(1, 60.0) and process.close(60.0)))
"""
CALLS = "connect,sendto,sendmsg,sendmmsg"
TO_INTERNET = re.compile(r"sa_family=AF_INET6?\b")
TO_OURSELVES = re.compile(r'inet_addr\("127\.0\.0\.1"\)|"::1"')


def can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and not subprocess.run([strace, "true"], capture_output=True).returncode
    )


def cannot_leave() -> bool:
    unshare = shutil.which("unshare")
    return unshare is None or bool(
        subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode
    )


@pytest.mark.usefixtures("no_network")
@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")
@pytest.mark.parametrize("program", [RECORD, pytest.param(TRAIN, marks=pytest.mark.slow)])
def test_no_process_of_an_offline_run_addresses_another_machine(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own account of every process and thread, W&B's compiled core included."""
    # as for a user: the real address of W&B's server, and no key
    monkeypatch.delenv("WANDB_BASE_URL")
    trace, path = tmp_path / "trace", tmp_path / "run"

    subprocess.run(
        ["strace", "-f", "-e", f"trace={CALLS},execve", "-e", "signal=none", "-o", str(trace),
         sys.executable, "-c", program, str(path)],
        check=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip

    lines = trace.read_text(errors="replace").splitlines()
    outwards = [
        line for line in lines if TO_INTERNET.search(line) and not TO_OURSELVES.search(line)
    ]
    [log] = (path / "wandb").glob("offline-run-*/*.wandb")
    assert any("execve(" in line and "wandb-core" in line for line in lines)
    assert any("execve(" in line and "fastppo.tracking.wandb_run" in line for line in lines)
    assert outwards == []
    assert wandb_log.read(log).exit_code == 0


@pytest.mark.usefixtures("no_network")
@pytest.mark.skipif(cannot_leave(), reason="a process without a network cannot be made here")
def test_an_offline_run_needs_no_network(tmp_path: Path) -> None:
    path = tmp_path / "run"

    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", RECORD, str(path)],
        cwd=tmp_path, timeout=120, capture_output=True, text=True,
    )  # fmt: skip

    [log] = (path / "wandb").glob("offline-run-*/*.wandb")
    assert done.returncode == 0, done.stderr
    assert len(wandb_log.read(log).history) == 2
