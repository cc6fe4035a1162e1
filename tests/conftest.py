import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The first example of a test compiles its kernel, and two shared cores are no stopwatch.
settings.register_profile(
    "fastppo", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fastppo")

# W&B as far as we call it. FAKE_WANDB_<WHAT> makes a call raise or hang: raise, hang, raise@3.
FAKE_WANDB = """
import json, os, pathlib, sys, time

counts = {}

def do(what, **facts):
    with open(os.environ["FAKE_WANDB_CALLS"], "a") as file:
        print(json.dumps({"do": what, **facts}, default=str), file=file)
    counts[what] = counts.get(what, 0) + 1
    trouble, _, at = os.environ.get("FAKE_WANDB_" + what.upper(), "").partition("@")
    if counts[what] < int(at or 1):
        return
    if trouble == "raise":
        raise ConnectionError("the server\\nhas gone")
    if trouble == "hang":
        time.sleep(600)
    if trouble == "exit":
        os._exit(9)

class Settings:
    def __init__(self, **settings):
        pass

class Table:
    def __init__(self, columns, data):
        self.facts = {"columns": columns, "data": data}

class Artifact:
    def __init__(self, name, type, metadata):
        self.name = name
    def add_file(self, path):
        pass

class Run:
    def __init__(self, id, dir):
        self.dir, self.summary = str(pathlib.Path(dir) / "wandb" / ("run-" + id) / "files"), {}
        os.makedirs(self.dir, exist_ok=True)
    def define_metric(self, name, step_metric=None):
        do("define_metric", name=name, step_metric=step_metric)
    def log(self, row):
        do("log", row=row)
    def log_artifact(self, made, aliases):
        do("log_artifact", name=made.name, aliases=aliases)
    def use_artifact(self, made, aliases):
        do("use_artifact", name=made.name, aliases=aliases)
    _log_artifact = lambda self, made, **how: do("use_offline", name=made.name)
    def finish(self, exit_code):
        do("finish", exit_code=exit_code, summary=self.summary)

def init(**arguments):
    do("init", **{key: value for key, value in arguments.items() if key != "settings"})
    return Run(arguments["id"], arguments["dir"])

if __name__ == "__main__":  # `python -m wandb sync FOLDER`
    folder = pathlib.Path(sys.argv[2])
    do("sync", folder=str(folder))
    if str(folder).endswith(os.environ.get("FAKE_WANDB_REFUSE", "nothing")):
        print("wandb: ERROR the server has gone")
    else:
        [log] = folder.glob("*.wandb")
        log.with_suffix(".wandb.synced").touch()
"""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="module")
def no_network() -> Iterator[list[Any]]:
    """W&B without a key; this process may connect to nothing but itself, and W&B's processes find
    a server of ours at their address, which fails the test if anybody calls.
    """
    calls: list[Any] = []
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_count_calls, args=(server, calls), daemon=True).start()
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded(sock: socket.socket, address: Any) -> None:
        if sock.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"a connection to {address}")
        connect(sock, address)

    def guarded_look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "::1", "localhost", None):
            raise AssertionError(f"a look-up of {host}")
        return look_up(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("API_KEY", "MODE", "RUN_ID", "RESUME", "SERVICE", "DATA_DIR"):
            patch.delenv(f"WANDB_{name}", raising=False)
        patch.delenv("RANK", raising=False)
        patch.setenv("NETRC", "/dev/null")
        patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        patch.setattr(socket.socket, "connect", guarded)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield calls
    server.close()
    assert calls == []


def _count_calls(server: socket.socket, calls: list[Any]) -> None:
    while True:
        try:
            calls.append(server.accept()[1])
        except OSError:
            return  # the test is over


@pytest.fixture
def fake_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[dict[str, Any]]]:
    """Puts a W&B that only notes its calls before the real one, for other processes; returns the
    calls so far.
    """
    folder = tmp_path / "fake"
    (folder / "wandb").mkdir(parents=True)
    (folder / "wandb" / "__init__.py").write_text(FAKE_WANDB)
    (folder / "wandb" / "__main__.py").write_text(FAKE_WANDB)
    calls = folder / "calls.jsonl"
    calls.touch()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("FAKE_WANDB_CALLS", str(calls))
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()]


@pytest.fixture
def public_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """EnvPool is stepped by its public `step`, which a test may replace."""
    monkeypatch.setattr("fastppo.pools.DRIVEN", ())
