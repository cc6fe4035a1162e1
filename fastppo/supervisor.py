"""Runs one program and ends all that it started: `supervisor.py SOCKET GRACE_S COMMAND...`.

A process of its own, since only an ancestor can be sure of a whole tree. It is the program's
subreaper: whatever the program starts stays below it, in whatever group or session, and orphans
become its children. Its end of a socket closes when we are gone, for whatever reason: `kill -9`, a
hang-up, a closed terminal. A process that is stopped dies by SIGKILL like any other.

What does less: PR_SET_PDEATHSIG in the program reaches no helper of it, fires when the *thread*
that started it ends, and is to be set between fork and exec, where a parent with threads must not
run Python (here it is set in addition: this process has one thread, lives as long as the program,
and may be killed itself). A marker in the environment is lost by `env -i`, and few machines give
us a cgroup to write to.

Only the standard library, and started with -I -S: it is there within 30 ms.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

AT_ONCE = b"at once"
"""Said before the socket is closed: no grace."""
_PATIENCE_S = 10.0
"""For processes that the system does not let die, in an unfinished read from a lost disk."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main() -> None:
    """Starts the program, tells its pid and its exit code, and ends its tree at the end of file."""
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    try:
        # A group of its own, so that it is paused together with its helpers.
        program = subprocess.Popen(
            sys.argv[3:],
            process_group=0,
            close_fds=False,
            preexec_fn=partial(_die_with, os.getpid(), prctl),
        )
    except OSError as error:
        _tell(link, f"refused {error.errno}")
        return
    _tell(link, f"started {program.pid}")
    for standard in range(3):  # the program alone holds them, and closes them when it ends
        os.dup2(os.open(os.devnull, os.O_RDWR), standard)
    at_once = _watch(link, wake, program.pid)
    if not at_once:
        deadline = time.monotonic() + float(sys.argv[2])
        while _exit_code(program.pid) is None and (left := deadline - time.monotonic()) > 0:
            _sleep(wake, left)
    _end_all()
    os._exit(0)  # nothing is left to tidy up, and Popen would look for its child


def _die_with(parent: int, prctl: Callable[[int, int], int]) -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(link: socket.socket, wake: int, leader: int) -> bool:
    """Waits until the other end lets go; returns whether it wants the tree ended at once."""
    reported = False
    while True:
        code = _exit_code(leader)
        if code is not None and not reported:
            _tell(link, f"ended {code}")
            reported = True
        if link in _sleep(wake, None, link):
            with suppress(OSError):
                return link.recv(16) == AT_ONCE
            return True


def _sleep(wake: int, seconds: float | None, *others: socket.socket) -> list[int | socket.socket]:
    """Waits until a child ends or a file is readable; returns the files that are."""
    waited: list[int | socket.socket] = [wake, *others]
    ready, _, _ = select.select(waited, [], [], seconds)
    with suppress(BlockingIOError):
        os.read(wake, 4096)
    return ready


def _exit_code(leader: int) -> int | None:
    """The leader's, or minus the signal that killed it; None while it lives.

    Orphans are taken off the list of processes. The leader stays on it, as a zombie, so that its
    number, which is that of its group, goes to nobody else.
    """
    while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if found.si_pid == leader:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        os.waitpid(found.si_pid, 0)
    return None


def _end_all() -> None:
    """Kills every descendant; those that are started meanwhile become children, and are next."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for pid in _descendants():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _tell(link: socket.socket, text: str) -> None:
    with suppress(OSError):  # gone; the end of file is next
        link.send(text.encode())


if __name__ == "__main__":
    main()
