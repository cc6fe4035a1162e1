"""A launched implementation: its clock, its pauses, its nonsense and its death."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench import contract
from fastppo.bench.contract.lines import MAX_LINE
from fastppo.bench.launch.implementations import Implementation
from fastppo.bench.launch.process import Failed, Launch

WORK: dict[str, Any] = {
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
    "network": "mlp 4 tanh, two trunks",
}
READY = json.dumps({"event": "ready", "work": WORK})
UPDATE = {"event": "update", "env_steps": 8}


@contextmanager
def program(source: str, silence_s: float = 60.0) -> Iterator[Launch]:
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with Launch(Implementation("child", command), {"torch_threads": [1]}, silence_s) as launch:
        yield launch


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_that_prints_lines_is_an_implementation() -> None:
    with program(f"print({READY!r}); print({json.dumps(UPDATE)!r})") as child:
        ready, update, end = child.next_event(), child.next_event(), child.next_event()

    assert ready is not None
    assert ready.values["work"] == WORK
    assert update is not None
    assert update.values["env_steps"] == 8
    assert 0.0 < ready.at <= update.at
    assert end is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("hello", "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"event": "party"}', "none of ready, update"),
        ('{"event": "update"}', "env_steps is missing; it must be a whole number above 0"),
        ('{"event": "update", "env_steps": 1}', "update comes before ready"),
        ('{"event": "update", "env_steps": 1, "return_mean": NaN}', "NaN is no JSON number"),
        ('{"event": "update", "env_steps": 1, "phases": {"lunch": 1}}', "phases must be"),
        ('{"event": "ready", "work": {}}', "work.parameters is missing"),
        ('{"event": "ready"}', "work is missing"),
        (json.dumps({"event": "ready", "work": WORK | {"epochs": 0}}), "work.epochs"),
        (json.dumps({"event": "ready", "work": WORK | {"wrappers": 3}}), "work.wrappers"),
    ],
)
def test_nonsense_is_one_line_that_names_what_was_printed(line: str, told: str) -> None:
    with program(f"print({line!r})") as child, pytest.raises(Failed, match="child: printed") as e:
        child.next_event()

    assert told in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import sys; sys.exit('RuntimeError: bad luck')", "died (exit code 1): RuntimeError: bad"),
        ("import os; os.kill(os.getpid(), 9)", "died (killed by signal 9): it left no message"),
    ],
)
def test_a_death_tells_how_and_the_last_words(source: str, told: str) -> None:
    with program(source) as child, pytest.raises(Failed, match=re.escape(told)):
        child.next_event()


def test_an_error_line_is_the_reason() -> None:
    line = json.dumps({"event": "error", "message": "no GPU here"})
    with program(f"print({line!r})") as child, pytest.raises(Failed, match="child: no GPU here"):
        child.next_event()


def test_half_a_line_at_the_end_is_a_death() -> None:
    with program("print('{', end='')") as child, pytest.raises(Failed, match="died"):
        child.next_event()


def test_silence_is_given_up() -> None:
    sleep = "import time; time.sleep(100)"
    with program(sleep, silence_s=0.2) as child, pytest.raises(Failed, match="no line within"):
        child.next_event()


def test_a_missing_program_and_a_missing_peer_are_told() -> None:
    with pytest.raises(Failed, match="x: cannot start '/no/such' "):
        Launch(Implementation("x", ["/no/such"]), {})
    with pytest.raises(Failed, match="install it"):
        Launch(Implementation("x", [], missing="x: install it"), {})


def test_the_clock_stands_still_while_paused_and_so_does_the_child() -> None:
    source = f"""
        import json, time
        print({READY!r}, flush=True)
        for i in range(10**9):
            print(json.dumps({UPDATE!r}), flush=True)
            time.sleep(0.01)
    """
    with program(source) as child:
        for _ in range(3):
            child.next_event()
        child.pause()
        before = child.clock()
        time.sleep(0.5)
        assert child.clock() == before
        child.resume()
        lines = 0
        while (event := child.next_event()) is not None and event.at < before + 0.1:
            lines += 1

    # half a second of sleep would have been fifty lines
    assert lines < 30


def test_the_childs_own_clock_leaves_pauses_out() -> None:
    source = f"""
        import os, time
        from fastppo.bench.contract import Reporter
        report = Reporter({{"torch_threads": [1]}})
        report.ready({WORK!r})
        while True:
            begin, wall = report.clock(), time.perf_counter()
            while report.clock() - begin < 0.2:
                pass
            report.update(env_steps=1, phases={{"env": report.clock() - begin,
                                               "other": time.perf_counter() - wall}})
    """
    with program(source) as child:
        child.next_event()
        for _ in range(20):
            child.next_event()
            time.sleep(0.05)  # into the next update, unless the machine is busy
            child.pause()
            time.sleep(0.5)
            child.resume()
            event = child.next_event()
            assert event is not None
            phases = event.values["phases"]
            if phases["other"] > 0.65:
                break

    assert phases["env"] < phases["other"] - 0.4


def test_the_childs_own_clock_never_goes_back() -> None:
    """The parent counts a pause from before its signal arrives."""
    source = f"""
        import os, struct
        from fastppo.bench import contract
        report = contract.Reporter({{"torch_threads": [1]}})
        report.ready({WORK!r})
        begin = report.clock()
        os.pwrite(int(os.environ[contract.CLOCK_VARIABLE]), struct.pack("d", 3600.0), 0)
        report.update(env_steps=1, phases={{"env": report.clock() - begin}})
    """
    with program(source) as child:
        child.next_event()
        event = child.next_event()

    assert event is not None
    assert event.values["phases"]["env"] == 0.0


def test_a_pause_between_the_two_clocks_that_a_child_reads_is_left_out() -> None:
    source = f"""
        import os, struct, time
        from fastppo.bench import contract
        report = contract.Reporter({{"torch_threads": [1]}})
        report.ready({WORK!r})
        begin, real = report.clock(), time.perf_counter
        def resumed():
            os.pwrite(int(os.environ[contract.CLOCK_VARIABLE]), struct.pack("d", 3600.0), 0)
            return real() + 3600.0
        time.perf_counter = resumed
        report.update(env_steps=1, phases={{"env": report.clock() - begin}})
    """
    with program(source) as child:
        child.next_event()
        event = child.next_event()

    assert event is not None
    assert event.values["phases"]["env"] < 60.0


def test_what_a_library_prints_does_not_get_among_the_lines() -> None:
    source = f"""
        import os
        from fastppo.bench.contract import Reporter
        report = Reporter({{"torch_threads": [1]}})
        print("welcome to my library")
        os.system("echo and its children")
        report.ready({WORK!r})
    """
    with program(source) as child:
        event = child.next_event()

    assert event is not None
    assert event.kind == "ready"


def test_helpers_of_a_child_end_with_it(tmp_path: Path) -> None:
    source = f"""
        import subprocess, time
        helper = subprocess.Popen(["sleep", "1000"])
        open({str(tmp_path / "pid")!r}, "w").write(str(helper.pid))
        print({READY!r}, flush=True)
        time.sleep(1000)
    """
    with program(source) as child:
        child.next_event()
        helper = int((tmp_path / "pid").read_text())
        assert alive(helper)

    wait_until(lambda: not alive(helper))


def test_memory_is_that_of_the_whole_group() -> None:
    source = f"""
        import subprocess, sys, time
        hog = "x = bytearray(150 * 2**20); print(flush=True); import time; time.sleep(1000)"
        helper = subprocess.Popen([sys.executable, "-c", hog], stdout=subprocess.PIPE)
        helper.stdout.readline()
        print({READY!r}, flush=True)
        time.sleep(1000)
    """
    with program(source) as child:
        child.next_event()
        assert 150 * 2**20 < child.peak_memory_bytes() < 400 * 2**20


def test_thread_counts_are_tried_and_the_faster_one_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads make an update twice as fast; the first update of each trial does not count."""
    now, threads = [0.0], [0]
    monkeypatch.setattr(contract, "_set_torch_threads", lambda n: threads.__setitem__(0, n))
    trial = contract._Trial([1, 2], lambda: now[0])
    trial.start()
    done = False
    updates = []
    while not done:
        updates.append(threads[0])
        now[0] += (5.0, 0.6, 0.9, 0.3, 0.3)[len(updates) - 1]
        done = trial.add(6)

    assert updates == [1, 1, 2, 2, 2]
    assert trial.rates == {1: pytest.approx(10.0), 2: pytest.approx(20.0)}


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [({1: 10.0, 2: 11.9}, 1), ({1: 10.0, 2: 12.1}, 2), ({1: 10.0, 2: 11.0, 4: 12.5}, 4)],
)
def test_more_threads_must_be_worth_it(rates: dict[int, float], chosen: int) -> None:
    trial = contract._Trial(list(rates), lambda: 0.0)
    trial.rates = rates

    assert trial.best() == chosen


def test_a_long_update_needs_no_warm_up_for_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(contract, "_set_torch_threads", lambda _: None)
    trial = contract._Trial([1, 2], lambda: now[0])
    trial.start()
    answers = []
    for seconds in (9.0, 4.0, 2.0):
        now[0] += seconds
        answers.append(trial.add(8))

    assert answers == [False, False, True]
    assert trial.rates == {1: pytest.approx(2.0), 2: pytest.approx(4.0)}


def test_a_manifest_with_other_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"""
        from fastppo.bench.contract import Reporter
        Reporter({{"torch_threads": [1]}}).ready({WORK!r} | {{"speed": 1}})
    """
    with program(source) as child, pytest.raises(Failed, match=r"ValueError: work: fields \['sp"):
        child.next_event()


# Floods, lingering helpers and killed parents: issue 10, 15 and 16.


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
def test_a_killed_parent_leaves_no_stopped_child_behind(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Nor a helper of it that went into a session of its own."""
    child = f"""
        import subprocess, time
        helper = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        open({str(tmp_path / "pid")!r}, "w").write(str(helper.pid))
        print({READY!r}, flush=True)
        time.sleep(1000)
    """
    parent = f"""
        import signal, sys, time
        from fastppo.bench.launch.implementations import Implementation
        from fastppo.bench.launch.process import Launch
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
        command = [sys.executable, "-c", {textwrap.dedent(child)!r}]
        launch = Launch(Implementation("child", command), {{}})
        launch.next_event()
        launch.pause()
        print(launch._process.pid, flush=True)
        time.sleep(1000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()), int((tmp_path / "pid").read_text())]
    assert all(map(alive, pids))

    os.kill(process.pid, number)
    process.wait()
    process.stdout.close()

    wait_until(lambda: not any(map(alive, pids)))
