"""The program of one launch: `python -P worker.py TREE BENCH STARTED`, one JSON line per request.

TREE is base or head: `fastppo` and `fastppo.kernels` are its own. BENCH is the `bench` folder of
the gate that runs, so that both sides are measured by the same definitions.
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType


def adopt(name: str, path: Path) -> ModuleType:
    """Loads a module of the gate's own under a name that the tree has one for, too."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(tree: Path, bench: Path) -> None:
    """Makes `fastppo` that of the tree, and `fastppo.bench` that of the gate."""
    sys.path.insert(0, str(tree))
    import fastppo

    if not Path(str(fastppo.__file__)).is_relative_to(tree):
        sys.exit(f"imported {fastppo.__file__} instead of what is in {tree}")
    package = ModuleType("fastppo.bench")
    package.__path__ = [str(bench)]
    sys.modules["fastppo.bench"] = package


def know_older_names(tree: Path) -> None:
    """Lets definitions of today find what an older tree has under another name."""
    if not (tree / "fastppo" / "trainer.py").exists():
        sys.modules["fastppo.trainer"] = importlib.import_module("fastppo.train")


def main() -> None:
    """Serves stdin; whatever a library prints goes to stderr and not among the answers."""
    tree, bench, started = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepare(Path(tree), Path(bench))
    launch = None
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            start = importlib.import_module("fastppo.bench.gate.start")
            answer = start.run(request["start"], float(started))
        elif "learn" in request:
            know_older_names(Path(tree))
            learn = importlib.import_module("fastppo.bench.gate.learn")
            answer = learn.run(**request["learn"])
        else:
            if launch is None:
                know_older_names(Path(tree))
                benchmarks = importlib.import_module("fastppo.bench.gate.benchmarks")
                launch = benchmarks.TurnTaker(Path(bench), adopt)
            answer = launch.serve(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
