"""What a user, or a bug report, needs to know about this installation."""

import os
import shutil
import sys

import torch
from rich.table import Table

from fastppo import machine, presets, threads
from fastppo.cgroups import BUSY, available_cores
from fastppo.config import Config
from fastppo.console import PlainConsole
from fastppo.engines import choose
from fastppo.kernels import api
from fastppo.run.args import DoctorArgs
from fastppo.tasks import Refusal, all_env_ids, classify, describe, spec_of
from fastppo.text import print_out


def run(args: DoctorArgs) -> int:
    """Runs `fastppo doctor`."""
    if args.envs:
        print_envs()
    else:
        print_report(args.env_id)
    return 0


def print_report(env_id: str) -> None:
    """Versions, kernel backends, machine, thread plan for one task, and warnings."""
    console = PlainConsole()
    facts = machine.machine()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, version in machine.versions().items():
        table.add_row(name, version or "not installed")
    table.add_row("", "")
    table.add_row("cpu", f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB")
    table.add_row("gpu", ", ".join(facts["gpus"]) or "none that torch sees")
    for name, reason in api.available_backends().items():
        table.add_row(f"backend {name}", "serves" if reason is None else f"does not: {reason}")
    config = Config(env_id=env_id, **presets.PRESETS[presets.preset_for(describe(env_id))])
    plan = threads.plan(config, describe(env_id))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    serving = api.resolve_backend("auto", torch.device(device), torch.float32)
    table.add_row("", "")
    table.add_row("plan for", f"{env_id}, {config.num_envs} environments, on {device}")
    table.add_row("threads", f"EnvPool {plan.env_threads}, torch {plan.torch_threads}")
    table.add_row("kernels", serving)
    choice = choose(config, spec_of(config), serving, torch.device(device))
    table.add_row("engine", f"{choice.name}: {choice.reason}")
    console.print(table)
    for warning in warnings():
        console.print(f"warning {warning}", style="yellow")


def warnings() -> list[str]:
    """What is likely to spoil a measurement or a run here."""
    found = []
    cores = available_cores()
    load = os.getloadavg()[0]
    if load > BUSY * cores:
        found.append(f"load is {load:.1f} on {cores} cores: rates measured now will be low")
    if (omp := os.environ.get("OMP_NUM_THREADS")) is not None:
        found.append(f"OMP_NUM_THREADS={omp} is set; fastppo sets torch's threads itself")
    if os.environ.get("TRITON_INTERPRET") == "1":
        found.append(
            "TRITON_INTERPRET=1: Triton kernels run interpreted, thousands of times slower"
        )
    if os.path.exists(machine.NUMBA_FILE):
        found.append(f"{machine.NUMBA_FILE} is here: numba takes its settings from it")
    if sys.flags.optimize or os.environ.get("PYTHONOPTIMIZE"):
        found.append("python -O leaves out the checks of our own and of other libraries")
    if shutil.disk_usage(".").free < 2**30:
        found.append("less than 1 GB of disk is free here; checkpoints may not fit")
    if shutil.which("c++") is None and shutil.which("g++") is None:
        found.append("no C++ compiler: torch.compile will not work")
    return found


def print_envs() -> None:
    """Every EnvPool task: served, or refused with the reason."""
    served = refused = 0
    for env_id in all_env_ids():
        try:
            spec = classify(env_id)
        except Refusal as refusal:
            refused += 1
            print_out(f"{env_id:44s} refused  {refusal}")
            continue
        served += 1
        kind = f"continuous {spec.action_dim}" if spec.nvec is None else f"discrete {spec.nvec}"
        print_out(f"{env_id:44s} served   {spec.obs_dtype} {spec.obs_shape}, {kind}")
    print_out(f"{served + refused} tasks: {served} served, {refused} refused")
    sys.stdout.flush()
