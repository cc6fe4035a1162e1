"""Programs that flood, linger or hide: bounded, seen at once, gone with us (issue 10: 15, 16)."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fastppo.bench.contract_lines import MAX_LINE
from fastppo.bench.implementations import Implementation
from fastppo.bench.process import Failed, Launch

WORK = {
    "parameters": 10,
    "forward_flops": 20,
    "rows_per_update": 8,
    "minibatch_rows": 4,
    "epochs": 1,
    "gradient_steps_per_update": 2,
    "precision": "float32",
    "obs_bytes": 16,
    "trains_on_reset_rows": False,
    "wrappers": [],
    "network": "mlp",
}
READY = json.dumps({"event": "ready", "work": WORK})


def program(source: str, silence_s: float = 600.0) -> Launch:
    command = [sys.executable, "-c", textwrap.dedent(source)]
    return Launch(Implementation("child", command), {}, silence_s)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def wait_until_gone(pid: int) -> None:
    for _ in range(1000):
        if gone(pid):
            return
        time.sleep(0.02)
    raise AssertionError(f"{pid} is still there")


def test_a_flood_without_an_end_of_line_is_given_up_at_the_limit() -> None:
    source = """
        import os
        while True:
            os.write(1, b"x" * 65536)
    """
    with program(source) as child, pytest.raises(Failed, match=f"{MAX_LINE:,}|{MAX_LINE}|MiB"):
        child.next_event()


def test_the_deadline_is_looked_at_while_bytes_arrive() -> None:
    source = """
        import os, time
        while True:
            os.write(1, b"x")
            time.sleep(0.01)
    """
    with program(source, silence_s=1.0) as child, pytest.raises(Failed, match="within 1 s"):
        child.next_event()


def test_the_exit_of_a_leader_is_seen_while_its_helper_holds_stdout() -> None:
    source = """
        import subprocess, sys
        subprocess.Popen(["sleep", "1000"])
        sys.exit(7)
    """
    with program(source) as child, pytest.raises(Failed, match="exit code 7"):
        child.next_event()


def test_what_a_leader_printed_last_is_read_though_its_helper_holds_stdout() -> None:
    source = f"""
        import subprocess
        subprocess.Popen(["sleep", "1000"])
        print({READY!r}, flush=True)
    """
    with program(source) as child:
        first, second = child.next_event(), child.next_event()

    assert first is not None
    assert first.kind == "ready"
    assert second is None


def test_a_flood_on_stderr_is_kept_short_and_its_last_words_are_told() -> None:
    source = """
        import sys
        for _ in range(200):
            sys.stderr.write("noise " * 10_000 + chr(10))
        sys.exit("the reason")
    """
    with program(source) as child, pytest.raises(Failed, match="the reason"):
        child.next_event()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_a_parent_that_dies_takes_helpers_in_their_own_session_with_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    child = f"""
        import subprocess, time
        helper = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        open({str(tmp_path / "pid")!r}, "w").write(str(helper.pid))
        print({READY!r}, flush=True)
        time.sleep(1000)
    """
    parent = f"""
        import sys, time
        from fastppo.bench.implementations import Implementation
        from fastppo.bench.process import Launch
        command = [sys.executable, "-c", {textwrap.dedent(child)!r}]
        launch = Launch(Implementation("child", command), {{}})
        launch.next_event()
        launch.pause()
        print("paused", flush=True)
        time.sleep(1000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "paused\n"
    helper = int((tmp_path / "pid").read_text())
    assert not gone(helper)

    os.kill(process.pid, number)
    process.wait()
    process.stdout.close()

    wait_until_gone(helper)
