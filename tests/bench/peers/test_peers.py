import contextlib
import fcntl
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import fastppo
from fastppo import cli
from fastppo.bench.peers import install, registry
from fastppo.errors import MachineError, UserError


@pytest.fixture
def peers_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for venvs, and a pip that installs nothing, at once."""
    monkeypatch.setenv("FASTPPO_PEERS", str(tmp_path / "peers"))

    def call(command: Sequence[str], log: Path) -> None:
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            (python.parents[1] / "lib" / version / "site-packages").mkdir(parents=True)
            python.parent.mkdir()
            python.symlink_to(sys.executable)

    monkeypatch.setattr(install, "call", call)
    versions = {peer.distribution: "1.2.3" for peer in registry.PEERS.values()}
    monkeypatch.setattr(install, "_versions", lambda python, log: versions)
    return tmp_path / "peers"


def run_install(*words: str) -> int:
    return cli.dispatch(["bench", "peers", *words])


def break_pip(monkeypatch: pytest.MonkeyPatch, package: str, error: BaseException) -> None:
    call: Callable[..., None] = install.call

    def broken(command: Sequence[str], log: Path) -> None:
        if any(word.startswith(package) for word in command):
            raise error
        call(command, log)

    monkeypatch.setattr(install, "call", broken)


def test_a_missing_peer_is_told_with_the_remedy(peers_root: Path) -> None:
    assert registry.installed() == []
    with pytest.raises(UserError, match="'sb3' is not installed; run `fastppo bench peers install"):
        registry.command("sb3")


def test_an_unknown_peer_names_the_known(peers_root: Path) -> None:
    with pytest.raises(UserError, match="'rllib' is unknown; known: sb3, sbx, rl_games"):
        run_install("install", "sb3", "rllib")

    assert not peers_root.exists()


def test_an_installed_peer_runs_the_code_of_this_package(peers_root: Path) -> None:
    (peers_root / ".sb3.building" / "bin").mkdir(parents=True)  # of an install that was killed

    assert registry.installed() == []
    assert run_install("install", "sb3", "sbx") == 0
    [link] = (peers_root / "sb3").glob("lib/*/site-packages/fastppo")
    link.unlink()
    link.symlink_to("/another/checkout")

    command = registry.command("sb3")

    assert command == [str(peers_root / "sb3/bin/python"), "-P", "-m", "fastppo.bench.peers.sb3"]
    assert registry.installed() == ["sb3", "sbx"]
    assert link.resolve() == Path(fastppo.__file__).resolve().parent
    assert not list(peers_root.glob(".*.building"))


def test_a_peer_that_fails_is_one_line_and_the_others_go_on(
    peers_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_pip(monkeypatch, "sbx-rl", MachineError("could not install: no such version"))

    assert run_install("install", "sbx", "sb3") == 3
    assert capsys.readouterr().err == "fastppo: error: sbx: could not install: no such version\n"
    assert registry.installed() == ["sb3"]
    assert not (peers_root / "sbx").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MachineError("no")])
def test_an_install_that_ends_early_leaves_what_was_there(
    peers_root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run_install("install", "sb3")
    break_pip(monkeypatch, "stable-baselines3", error)

    with contextlib.suppress(KeyboardInterrupt):
        run_install("install", "--again", "sb3")

    assert registry.installed() == ["sb3"]
    assert not list(peers_root.glob(".*.building"))


@pytest.mark.parametrize("text", [None, "", '{"requirements": ["sta', "{}"])
def test_a_folder_without_a_whole_stamp_is_not_installed(
    peers_root: Path, text: str | None
) -> None:
    run_install("install", "sb3")
    stamp = peers_root / "sb3" / registry.STAMP
    stamp.unlink() if text is None else stamp.write_text(text)

    assert registry.installed() == []
    assert run_install("install", "sb3") == 0
    assert registry.installed() == ["sb3"]


def test_other_pins_than_ours_are_outdated(
    peers_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_install("install", "sb3")
    newer = replace(registry.PEERS["sb3"], requirements=("stable-baselines3==9",))
    monkeypatch.setitem(registry.PEERS, "sb3", newer)
    capsys.readouterr()

    assert run_install("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["sb3", "1.2.3", "(outdated)"]
    assert lines[1].split()[:4] == ["sbx", "not", "installed", "-"]
    with pytest.raises(UserError, match="installed in other versions"):
        registry.python_of("sb3")


def test_one_process_installs_a_peer_at_a_time(
    peers_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers_root.mkdir()
    with (peers_root / ".sb3.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert run_install("install", "sb3") == 3
    assert "another process is installing it" in capsys.readouterr().err


def test_a_command_that_fails_is_told_by_its_error_line(tmp_path: Path) -> None:
    code = (
        "print('ERROR: No matching distribution'); print('[notice] new pip'); raise SystemExit(1)"
    )
    log = tmp_path / "log"

    with pytest.raises(
        MachineError, match=r"^could not install: ERROR: No matching dist.*log"
    ) as e:
        install.call([sys.executable, "-c", code], log)

    assert "\n" not in str(e.value)
    assert "[notice]" in log.read_text()


def test_every_requirement_is_pinned_exactly() -> None:
    for peer in registry.PEERS.values():
        assert all("==" in pin for pin in peer.pins), peer.name
