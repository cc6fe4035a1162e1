"""The command line of `fastppo`: the table of its commands."""

import sys
from collections.abc import Sequence

from fastppo import __version__, program
from fastppo.arguments import HELP
from fastppo.errors import UserError
from fastppo.shell import Command
from fastppo.text import print_out

# by name, at run time: the one place where fastppo reaches up to bench
COMMANDS = (
    Command(
        "train", "ENV_ID", "train a policy; --resume RUN_DIR goes on with one",
        "fastppo.run.args:TrainArgs", "fastppo.run.session:run",
    ),
    Command(
        "eval", "RUN_DIR", "play whole episodes with a trained policy",
        "fastppo.run.args:EvalArgs", "fastppo.run.evaluate:run", prints=True,
    ),
    Command(
        "tokens", "TASK", "PPO on a small language model: bandit, reverse or lipogram",
        "fastppo.tokens.args:TokenArgs", "fastppo.tokens.command:run",
    ),
    Command(
        "doctor", "", "what is installed, which kernels serve, the thread plan; --envs",
        "fastppo.run.args:DoctorArgs", "fastppo.run.doctor:run", prints=True,
    ),
    Command(
        "bench train", "[ENV_ID ...]", "env steps per second, side by side with other libraries",
        "fastppo.bench.train.args:Args", "fastppo.bench.train.command:run", prints=True,
    ),
    Command(
        "bench learn", "ENV_ID ...", "return against env steps and time, over several seeds",
        "fastppo.bench.learn.args:Args", "fastppo.bench.learn.command:run", prints=True,
    ),
    Command(
        "bench env", "ENV_ID ...", "EnvPool alone, over environments, batch sizes and threads",
        "fastppo.bench.env.args:Args", "fastppo.bench.env.command:run", prints=True,
    ),
    Command(
        "bench kernels", "[OP ...]", "every kernel, eager and compiled torch, and a plain copy",
        "fastppo.bench.kernels.args:Args", "fastppo.bench.kernels.command:run", prints=True,
    ),
    Command(
        "bench tokens", "[NAME ...]", "what libraries compute from tokens, and time and memory",
        "fastppo.bench.tokens.args:Args", "fastppo.bench.tokens.command:run", prints=True,
    ),
    Command(
        "bench compare", "", "how often the verdict of compare is wrong, by simulation",
        "fastppo.bench.compare.simulate:Args", "fastppo.bench.compare.simulate:run", prints=True,
    ),
    Command(
        "bench coverage", "", "how often the intervals of the tables cover, by simulation",
        "fastppo.bench.results.coverage:Args", "fastppo.bench.results.coverage:run", prints=True,
    ),
    Command(
        "bench parity", "", "how often the verdict of bench learn is wrong, by simulation",
        "fastppo.bench.results.simulation:ParityArgs",
        "fastppo.bench.results.parity_simulate:run", prints=True,
    ),
    Command(
        "bench peers install", "[NAME ...]", "the other libraries, each in a venv of its own",
        "fastppo.bench.peers.install:InstallArgs", "fastppo.bench.peers.install:run_install",
    ),
    Command(
        "bench peers list", "", "which of them are installed, and how large they are",
        "fastppo.bench.peers.install:ListArgs", "fastppo.bench.peers.install:run_list",
        prints=True,
    ),
    Command(
        "profile", "ENV_ID", "where the time of a few updates goes, and what bounds it",
        "fastppo.bench.profile.args:Args", "fastppo.bench.profile.command:run",
    ),
    Command(
        "compare", "A.json B.json", "two result files, row by row",
        "fastppo.bench.compare.args:Args", "fastppo.bench.compare.command:run",
    ),
    Command(
        "report", "FILE ...", "results and runs as a table, markdown, JUnit, pictures, or one page",
        "fastppo.bench.report.args:Args", "fastppo.bench.report.command:run", prints=True,
    ),
    Command(
        "track push", "FILE ...", "stored results and runs to Weights & Biases",
        "fastppo.bench.track.args:PushArgs", "fastppo.bench.track.command:run",
    ),
    Command(
        "track sync", "[DIR ...]", "upload of offline runs, the parts of each in order",
        "fastppo.bench.track.args:SyncArgs", "fastppo.bench.track.sync:run",
    ),
    Command(
        "gate", "BASE [HEAD]", "whether HEAD is slower than BASE, on a noisy machine",
        "fastppo.bench.gate.args:GateArgs", "fastppo.bench.gate.command:run",
    ),
    Command(
        "gate self-test", "", "HEAD against itself: how often this machine cries wolf",
        "fastppo.bench.gate.args:SelfTestArgs", "fastppo.bench.gate.self_test:run", prints=True,
    ),
    Command(
        "gate record", "FILE ...", "result files into a history, a line each",
        "fastppo.bench.gate.args:RecordArgs", "fastppo.bench.gate.history:run_record",
    ),
    Command(
        "gate history", "DIR", "where the series of a history change, and by how much",
        "fastppo.bench.gate.args:HistoryArgs", "fastppo.bench.gate.history:run_history",
    ),
    Command(
        "gate simulate", "", "how often the rule of the gate is wrong, by simulation",
        "fastppo.bench.gate.args:SimulateArgs", "fastppo.bench.gate.simulate:run", prints=True,
    ),
    Command(
        "static", "", "what compilers make of every kernel, without a GPU; --check gates",
        "fastppo.bench.static.args:Args", "fastppo.bench.static.command:run",
    ),
    Command(
        "gpu-check", "--out DIR", "all that only a GPU can tell: correctness, times, rates",
        "fastppo.bench.gpu_check.args:Args", "fastppo.bench.gpu_check.command:run",
    ),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    return program.run(lambda: dispatch(words), is_process=argv is None)


def dispatch(words: Sequence[str]) -> int:
    """Runs the command that the first words name.

    Raises:
        UserError, MachineError, Diverged, Interrupted
        SystemExit: after --help.
    """
    by_name = {tuple(command.name.split()): command for command in COMMANDS}
    for count in (3, 2, 1):
        command = by_name.get(tuple(words[:count]))
        if command is not None:
            return command.serve(words[count:])
    if words[:1] in (["-V"], ["--version"]):
        print_out(f"fastppo {__version__}")
        return 0
    group: list[str] = []
    while _members([*group, *words[:1]]) and words:
        group, words = [*group, words[0]], words[1:]
    if words and words[0] not in (*HELP, "help"):
        known = dict.fromkeys(name[len(group)] for name in map(tuple, _members(group)))
        where = " ".join(group) or "command"
        raise UserError(f"{where}: {words[0]!r} is unknown; use {', '.join(known)}")
    print(_overview(group))
    return 0 if words else 2


def _members(group: Sequence[str]) -> list[list[str]]:
    """The names, as words, of the commands that begin with those of the group."""
    names = (command.name.split() for command in COMMANDS)
    return [name for name in names if name[: len(group)] == list(group)]


def _overview(group: Sequence[str]) -> str:
    members = [command for command in COMMANDS if command.name.split() in _members(group)]
    usage = {f"{command.name} {command.takes}": command.about for command in members}
    width = max(map(len, usage))
    called = " ".join(["fastppo", *group])
    lines = [f"  {how:{width}}  {about}" for how, about in usage.items()]
    return "\n".join(
        [f"usage: {called} COMMAND ...", "", *lines, "", f"{called} COMMAND --help explains one."]
    )
