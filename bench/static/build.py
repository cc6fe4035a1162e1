"""Compiles and counts every kernel of a source tree, in processes of their own.

This process imports neither triton nor torch, and so needs no tree at all that imports.
"""

import base64
import itertools
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

from fastppo.bench.static import numba_asm, sass
from fastppo.bench.static.remote import RemoteWorker
from fastppo.errors import MachineError

COMPILERS = ("triton", "numba")
WORKER = Path(__file__).with_name("worker.py")

Key = tuple[str, str]
"""Name of a kernel, and what it was compiled for: sm_90, or numba_asm.TARGET_CPU."""


class Stats(Protocol):
    """What `sass.CubinStats` and `numba_asm.AsmStats` have in common."""

    @property
    def instructions(self) -> int: ...

    @property
    def opcode_hash(self) -> str: ...

    def to_json(self) -> dict[str, Any]: ...

    def shown(self) -> dict[str, str]: ...

    def problems(self, before: Self | None, tolerance: float) -> list[str]: ...


@dataclass(slots=True)
class Build:
    """What one compiler made of the kernels of one tree."""

    versions: dict[str, str]
    """Counts are comparable where these agree."""
    kernels: dict[Key, Any] = field(default_factory=dict)
    """`Stats` of each."""
    names: list[str] = field(default_factory=list)
    """Every kernel of the tree, chosen or not."""


def require(compiler: str) -> None:
    """Checks that this machine can compile with `compiler`.

    Raises:
        MachineError: it cannot; the message names the remedy.
    """
    if find_spec(compiler) is None:
        where = " (Linux on x86-64 only)" if compiler == "triton" else ""
        raise MachineError(f"{compiler} is not installed: pip install {compiler}{where}")
    if compiler == "numba" and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise MachineError(
            f"numba compiles for {numba_asm.TARGET_CPU} on Linux x86-64 only, this is "
            f"{sys.platform} {platform.machine()}: run there, or pass --compiler triton"
        )


def build(
    tree: Path,
    *,
    compilers: Sequence[str],
    arches: Sequence[int],
    chosen: Callable[[str], bool],
    jobs: int,
) -> dict[str, Build]:
    """Every chosen kernel of `tree`, compiled and counted.

    Args:
        tree: folder that holds `fastppo/`.
        chosen: whether a kernel of this name is wanted.
        jobs: processes at a time.

    Raises:
        MachineError: a kernel does not compile (names it, and the compiler's last line), or the
            tree changed meanwhile.
    """
    builds: dict[str, Build] = {}
    # Triton's workers take the next task by this number, whoever is free first
    counter = itertools.count()
    workers = _Workers(tree)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        pending = []
        if "numba" in compilers:
            pending.append(pool.submit(_build_numba, workers, chosen))
        if "triton" in compilers:
            pending += [
                pool.submit(_build_triton, workers, arches, chosen, counter) for _ in range(jobs)
            ]
        try:
            for compiler, part in (future.result() for future in pending):
                whole = builds.setdefault(compiler, part)
                if part.names != whole.names:
                    raise MachineError(f"{tree} was edited while it was compiled; run again")
                whole.kernels.update(part.kernels)
        finally:
            workers.stop()  # after an error or a signal; else they have ended
            pool.shutdown(cancel_futures=True)
    for part in builds.values():
        places = {name: i for i, name in enumerate(part.names)}
        part.kernels = dict(sorted(part.kernels.items(), key=lambda item: _order(places, item[0])))
    return builds


def _order(places: dict[str, int], key: Key) -> tuple[int, int, str]:
    kernel, target = key
    return places[kernel], len(target), target  # sm_90 before sm_100


class _Workers:
    """The processes that compile the kernels of a tree."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._open: set[RemoteWorker] = set()
        self.is_stopped = False

    def stop(self) -> None:
        """Kills those that run, and those that are started from now on."""
        with self._lock:
            self.is_stopped = True
            for worker in self._open:
                worker.kill()

    @contextmanager
    def start(self, compiler: str) -> Iterator[RemoteWorker]:
        """One process, for the block."""
        with _worker(compiler, self._tree) as worker:
            with self._lock:
                self._open.add(worker)
                if self.is_stopped:
                    worker.kill()
            try:
                yield worker
            finally:
                with self._lock:
                    self._open.discard(worker)


@contextmanager
def _worker(compiler: str, tree: Path) -> Iterator[RemoteWorker]:
    with tempfile.TemporaryDirectory(prefix="fastppo-static-") as scratch:
        # -P: the worker's own folder stays out of its path, where names like `table` would shadow
        command = [sys.executable, "-P", str(WORKER), compiler, str(tree), scratch]
        with RemoteWorker(compiler, [*command, numba_asm.TARGET_CPU]) as worker:
            yield worker


def _build_numba(workers: _Workers, chosen: Callable[[str], bool]) -> tuple[str, Build]:
    with workers.start("numba") as worker:
        description = worker.ask({})
        part = Build(description["versions"], names=description["kernels"])
        for name in filter(chosen, part.names):
            assembly = worker.ask({"kernel": name})["asm"]
            part.kernels[name, numba_asm.TARGET_CPU] = numba_asm.analyse(assembly)
    return "numba", part


def _build_triton(
    workers: _Workers,
    arches: Sequence[int],
    chosen: Callable[[str], bool],
    counter: Iterator[int],
) -> tuple[str, Build]:
    with workers.start("triton") as worker:
        description = worker.ask({})
        part = Build(description["versions"], names=description["kernels"])
        tasks = [
            (index, name, arch)
            for index, name in enumerate(part.names)
            if chosen(name)
            for arch in arches
        ]
        while not workers.is_stopped and (taken := next(counter)) < len(tasks):
            index, name, arch = tasks[taken]
            try:
                answer = worker.ask({"kernel": index, "arch": arch})
            except MachineError as error:
                raise MachineError(f"{name} for sm_{arch}: {error}") from None
            cubin = base64.b64decode(answer.pop("cubin"))
            part.kernels[name, f"sm_{arch}"] = sass.analyse(
                arch=arch,
                disassembly=sass.disassemble(cubin, description["nvdisasm"]),
                **answer,
            )
    return "triton", part
