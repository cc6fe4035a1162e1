"""The children of `fastppo bench` that are ours: `python -m fastppo.bench.launch.worker WHAT`.

WHAT is fastppo, fastppo-eager, -graph or -mlp (which name the engine), reference, ceilings, or the
`module:function` of a user, called with the request and a Reporter. They speak the contract of
`fastppo.bench.contract`.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from fastppo.bench import contract
from fastppo.bench.contract import Reporter
from fastppo.bench.launch.request import Request, config_of
from fastppo.config import Engine


def run_fastppo(request: Request, report: Reporter, engine: Engine = "auto") -> None:
    """Trains with `fastppo.trainer.Trainer`."""
    from fastppo.bench.contract import manifest
    from fastppo.trainer import Trainer

    config = replace(config_of(request), engine=engine)
    trainer = Trainer(config, clock=report.clock)
    work = manifest.of_trainer(config, trainer.spec, trainer.policy, trainer.policy)
    report.ready(
        work,
        {"backend": trainer.backend, "engine": trainer.engine.name, "compile_s": trainer.compile_s},
    )
    _loop(trainer.run_update, lambda: trainer.update < config.num_updates, report)
    trainer.close()


def run_reference(request: Request, report: Reporter) -> None:
    """Trains with `fastppo.bench.reference.ReferenceTrainer`."""
    from fastppo.bench.contract import manifest
    from fastppo.bench.reference import ReferenceTrainer

    config = config_of(request)
    trainer = ReferenceTrainer(config, env_threads=config.env_threads, clock=report.clock)
    agent = trainer.agent
    report.ready(manifest.of_trainer(config, trainer.spec, agent, agent.outputs_and_value))
    _loop(trainer.run_update, lambda: trainer.update_index < config.num_updates, report)
    trainer.close()


def run_ceilings(request: Request, report: Reporter) -> None:
    """What no trainer can exceed here."""
    from fastppo.bench.launch import ceilings

    ceilings.run(request, report)


def _loop(
    run_update: Callable[[], dict[str, Any]], unfinished: Callable[[], bool], report: Reporter
) -> None:
    """Updates and reports; the time a report takes is booked as the next update's logging."""
    logging_s = 0.0
    while unfinished():
        metrics = run_update()
        done = report.clock()
        phases = {name: metrics.get(f"time/{name}", 0.0) for name in contract.PHASES}
        report.update(
            env_steps=metrics["env_steps"],
            episodes=metrics["episode/count"],
            return_mean=metrics.get("episode/return"),
            phases=phases | {"logging": logging_s},
        )
        logging_s = report.clock() - done


def main() -> int:
    """Serves one implementation until its end, or until the parent has heard enough.

    Returns:
        0, or 3 after a failure that the parent knows of.
    """
    from fastppo import faults
    from fastppo.errors import Diverged, MachineError, UserError

    # compiled libraries warn on import about what no benchmark can change
    warnings.simplefilter("ignore")
    what = sys.argv[1]
    ours: dict[str, Callable[[Request, Reporter], None]] = {
        "fastppo": run_fastppo,
        "fastppo-eager": partial(run_fastppo, engine="eager"),
        "fastppo-graph": partial(run_fastppo, engine="graph"),
        "fastppo-mlp": partial(run_fastppo, engine="mlp"),
        "reference": run_reference,
        "ceilings": run_ceilings,
    }
    request = contract.read_request()
    report = Reporter(request)
    try:
        if what in ours:
            ours[what](request, report)
        else:
            _user_function(what)(request, report)
    except (UserError, MachineError, Diverged) as error:
        report.error(str(error))
        return 3
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        fault = faults.as_line(error)
        if fault is None:
            raise
        report.error(fault)
        return 3
    return 0


def _user_function(what: str) -> Callable[[Request, Reporter], None]:
    from fastppo.errors import UserError

    module, _, name = what.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what}: cannot be imported ({error})") from None
    function: Callable[[Request, Reporter], None] = found
    return function


if __name__ == "__main__":
    sys.exit(main())
