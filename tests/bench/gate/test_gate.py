"""`fastppo gate BASE HEAD`: red where the head costs more; the same code passes untimed."""

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fastppo import cli
from fastppo.bench.gate import alarms, closure, command, own, pairs, revisions, rule, self_test
from fastppo.bench.gate.args import GateOptions
from fastppo.bench.gate.entries import _exact
from fastppo.bench.gate.revisions import GateSide
from fastppo.bench.gate.subject import Costs, Failures
from fastppo.bench.results import result
from fastppo.bench.track.runs import planned, table_of
from fastppo.errors import UserError

KERNELS = ("gae", "adam", "loss")


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


def plant(tree: Path, adam: str = "x = 1") -> None:
    """A tree of three kernels and the trainer, as far as closures go."""
    for kernel in KERNELS:
        folder = tree / "kernels" / kernel
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "op.py").write_text(f'"""{kernel}."""\n\nfrom fastppo.kernels import shared\n')
        (folder / "numba_cpu.py").write_text(adam if kernel == "adam" else "x = 1")
    (tree / "kernels" / "shared.py").write_text("y = 2\n")
    (tree / "kernels" / "aot.py").write_text("")
    (tree / "fastppo").mkdir(exist_ok=True)
    (tree / "fastppo" / "trainer.py").write_text("from fastppo.kernels.adam import op\n")
    (tree / "fastppo" / "kernels").unlink(missing_ok=True)
    (tree / "fastppo" / "kernels").symlink_to("../kernels")


@pytest.fixture
def trees(tmp_path: Path) -> tuple[GateSide, GateSide]:
    made = []
    for name in ("base", "head"):
        tree = tmp_path / name
        tree.mkdir()
        plant(tree)
        made.append(GateSide(name, name, tree, tmp_path / f"cache-{name}"))
    return made[0], made[1]


def test_comments_docstrings_and_layout_are_the_same_code(trees: tuple[GateSide, GateSide]) -> None:
    base, head = trees
    text = '"""Another word."""\n\n# why\nx   =   1  # so\n"""Of x."""\n'
    (head.tree / "kernels" / "adam" / "numba_cpu.py").write_text(text)

    for name in ("kernel/adam/adam[P=9]", "train/CartPole-v1"):
        entries = closure.entry_modules(name)
        assert closure.digest(base.tree, entries) == closure.digest(head.tree, entries)


@pytest.mark.parametrize(
    ("file", "moved"),
    [
        ("kernels/adam/numba_cpu.py", {"kernel/adam", "train/CartPole-v1"}),
        ("kernels/gae/numba_cpu.py", {"kernel/gae"}),
        ("kernels/shared.py", {"kernel/adam", "kernel/gae", "train/CartPole-v1"}),
        ("fastppo/trainer.py", {"train/CartPole-v1"}),
    ],
)
def test_a_change_moves_what_depends_on_it(
    file: str, moved: set[str], trees: tuple[GateSide, GateSide]
) -> None:
    base, head = trees
    path = head.tree / file
    path.write_text(path.read_text() + "\nchanged = 3\n")

    names = {"kernel/adam", "kernel/gae", "train/CartPole-v1"}
    differ = {
        name
        for name in names
        if closure.digest(base.tree, closure.entry_modules(name))
        != closure.digest(head.tree, closure.entry_modules(name))
    }
    assert differ == moved


class Planted(own.OwnBenchmarks):
    """Three kernels; what they cost comes from a table."""

    def __init__(
        self, pair: tuple[GateSide, GateSide], table: Callable[..., float | None], *, again: bool
    ) -> None:
        super().__init__(pair, again=again)
        self._table = table

    def names(self) -> list[str]:
        return [f"kernel/{kernel}/{kernel}[N=1]" for kernel in KERNELS]

    def warm(self, names: Sequence[str]) -> Failures:
        return self.costs(self._pair, names, 0)[1]

    def costs(
        self, order: Sequence[GateSide], names: Iterable[str], seed: int, turns: int = 1
    ) -> tuple[Costs, Failures]:
        seen: Costs = {side.name: {} for side in order}
        missing: Failures = {}
        for side, name in product(seen, names):
            cost = self._table(side, name, seed)
            if cost is None:
                missing[name, side] = "it is not there"
            else:
                seen[side][name] = cost
        return seen, missing


@pytest.fixture
def gate(
    trees: tuple[GateSide, GateSide], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., int]:
    """Runs the command on the two trees, with costs from a table in place of processes."""

    def run(*words: str, costs: Callable[[str, str, int], float | None]) -> int:
        @contextmanager
        def planted(*_: object, **__: object) -> Iterator[tuple[GateSide, GateSide]]:
            yield trees

        def subject_of(pair: Any, args: GateOptions, *, again: bool = False) -> Planted:
            return Planted(pair, costs, again=again)

        for module in (command, self_test):
            monkeypatch.setattr(module, "unpacked", planted)
            monkeypatch.setattr(module, "subject_of", subject_of)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(pairs, "_ticks", list)
        monkeypatch.setattr(command, "available_cores", lambda: 2)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return cli.main(["gate", *(words if words[0] == "self-test" else ("BASE", "HEAD", *words))])

    return run


def slower(factor: float) -> Callable[[str, str, int], float]:
    """The head's adam costs so much more; a little noise on both sides."""

    def cost(side: str, name: str, seed: int) -> float:
        noise = 1.0 + 0.002 * ((seed * 7 + len(side) + hash(name) % 3) % 5)
        return 1e-5 * noise * (factor if side == "head" and "adam" in name else 1.0)

    return cost


def change_adam(trees: tuple[GateSide, GateSide]) -> None:
    (trees[1].tree / "kernels" / "adam" / "numba_cpu.py").write_text("x = 2")


def test_the_gate_turns_red_and_names_what_is_slower(
    gate: Callable[..., int],
    trees: tuple[GateSide, GateSide],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_adam(trees)
    files = {name: tmp_path / f"out.{name}" for name in ("json", "html", "junit", "md")}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]

    assert gate("--only", "kernel/*", *words, costs=slower(1.2)) == 1

    assert "REGRESSION: kernel/adam/adam[N=1] costs 1.200" in " ".join(
        capsys.readouterr().out.split()
    )
    record = result.read(files["json"])
    verdicts = {entry["id"]: entry["gate"]["verdict"] for entry in record["results"]}
    assert verdicts["gate/kernel/adam/adam[N=1]"] == rule.REGRESSION
    assert verdicts["gate/kernel/gae/gae[N=1]"] == rule.PASS
    (failure,) = ElementTree.parse(files["junit"]).findall(".//failure")
    assert "1.200" in str(failure.get("message"))
    assert "REGRESSION" in files["html"].read_text()
    assert "REGRESSION" in files["md"].read_text()


def test_equal_costs_pass_at_the_first_look(
    gate: Callable[..., int], trees: tuple[GateSide, GateSide], tmp_path: Path
) -> None:
    change_adam(trees)
    target = tmp_path / "out.json"

    assert gate("--only", "kernel/*", "--json", str(target), costs=slower(1.0)) == 0

    entries = {entry["id"]: entry["gate"] for entry in json.loads(target.read_text())["results"]}
    assert entries["gate/kernel/adam/adam[N=1]"]["pairs"] == rule.FIRST_LOOK
    assert entries["gate/kernel/gae/gae[N=1]"]["note"] == "same code"


def test_the_same_code_is_not_timed(gate: Callable[..., int]) -> None:
    assert gate("--only", "kernel/*", costs=lambda *_: pytest.fail("it was timed")) == 0


def test_a_self_test_is_kept_and_later_gates_tell_of_it(
    gate: Callable[..., int],
    trees: tuple[GateSide, GateSide],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gate("self-test", "--gates", "2", "--md", str(tmp_path / "t.md"), costs=slower(1.0)) == 0

    (row,) = [line for line in (tmp_path / "t.md").read_text().splitlines() if "| all |" in line]
    assert row.startswith("| all | 6 | 6 | 0 | 0 | 0 | 0 |")
    assert len(alarms.store().read_text().splitlines()) == 2
    change_adam(trees)
    capsys.readouterr()
    assert gate("--only", "kernel/*", costs=slower(1.0)) == 0
    assert "2 gates of equal sides, 0 of 6 verdicts REGRESSION" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_self_test_can_turn_red(gate: Callable[..., int], tmp_path: Path) -> None:
    assert gate("self-test", "--md", str(tmp_path / "t.md"), costs=slower(1.3)) == 0
    assert "| all | 3 | 2 | 0 | 0 | 0 | 1 |" in (tmp_path / "t.md").read_text()


def test_a_second_machine_confirms_what_the_first_suspects(
    gate: Callable[..., int],
    trees: tuple[GateSide, GateSide],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_adam(trees)
    screen, summary = tmp_path / "screen.json", tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    words = ("--only", "kernel/*", "--github")

    assert gate(*words, "--screen", "--json", str(screen), costs=slower(1.2)) == 0
    assert "::warning title=performance gate::SUSPECT: kernel/adam" in capsys.readouterr().out
    assert gate(*words, "--confirm", str(screen), costs=slower(1.2)) == 1
    said = capsys.readouterr().out
    assert "::error title=performance gate::REGRESSION: kernel/adam/adam[N=1] costs 1.200" in said
    assert "10%25 allowed" in said
    assert "REGRESSION" in summary.read_text()
    assert gate(*words, "--confirm", str(screen), costs=slower(1.0)) == 0
    assert "::warning title=performance gate::FLAKY: kernel/adam" in capsys.readouterr().out


def test_a_regression_that_is_meant_is_shown_and_fails_nothing(
    gate: Callable[..., int],
    trees: tuple[GateSide, GateSide],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_adam(trees)
    words = ("--only", "kernel/*", "--junit", str(tmp_path / "out.xml"))

    assert gate(*words, "--accept", "kernel/loss/*,kernel/adam/*", costs=slower(1.2)) == 0
    assert "ACCEPTED: kernel/adam/adam[N=1] costs 1.200" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not ElementTree.parse(tmp_path / "out.xml").findall(".//failure")
    assert gate(*words, "--accept", "kernel/gae/*", costs=slower(1.2)) == 1


def test_wandb_gets_the_verdicts_as_a_table(
    gate: Callable[..., int], trees: tuple[GateSide, GateSide], tmp_path: Path
) -> None:
    change_adam(trees)
    target = tmp_path / "out.json"
    assert gate("--only", "kernel/*", "--json", str(target), costs=slower(1.2)) == 1

    (run,) = planned(result.read(target), target, against=None, traces=())
    columns, rows = table_of(result.read(target))
    verdicts = {row[columns.index("benchmark")]: row[columns.index("verdict")] for row in rows}
    assert verdicts["kernel/adam/adam[N=1]"] == rule.REGRESSION
    assert run.init["job_type"] == "gate"
    assert run.summary["verdict/REGRESSION"] == 1
    assert list(run.tables) == ["verdicts"]
    assert [artifact["files"] for artifact in run.artifacts] == [[str(target)]]


def test_a_first_run_without_suspects_is_confirmed_without_a_launch(
    gate: Callable[..., int], trees: tuple[GateSide, GateSide], tmp_path: Path
) -> None:
    change_adam(trees)
    screen = tmp_path / "screen.json"
    assert gate("--only", "kernel/*", "--screen", "--json", str(screen), costs=slower(1.0)) == 0
    assert gate("--confirm", str(screen), costs=lambda *_: pytest.fail("it was timed")) == 0


def test_another_revision_or_another_result_confirms_nothing(
    gate: Callable[..., int],
    trees: tuple[GateSide, GateSide],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = tmp_path / "screen.json"
    assert gate("--only", "kernel/*", "--screen", "--json", str(screen), costs=slower(1.0)) == 0
    record = json.loads(screen.read_text())
    for changed, message in (
        ({"head": {"sha": "abc"}}, "--confirm: its head is abc, and here it is head"),
        ({"kind": "kernel"}, "--confirm: is the result of kernel, not of a gate"),
    ):
        other = {key: value for key, value in record.items() if key != "digest"} | changed
        screen.write_text(json.dumps(other))
        assert gate("--confirm", str(screen), costs=slower(1.0)) == 2
        assert message in capsys.readouterr().err


def test_controls_that_moved_make_it_void(
    gate: Callable[..., int], trees: tuple[GateSide, GateSide], capsys: pytest.CaptureFixture[str]
) -> None:
    change_adam(trees)

    def drift(side: str, name: str, seed: int) -> float:
        return (1.3 if side == "head" else 1.0) * (1.0 + 0.001 * (seed % 5))

    assert gate("--only", "kernel/*", costs=drift) == 4
    assert "VOID" in capsys.readouterr().out


def test_what_a_side_lacks_is_not_a_pass(
    gate: Callable[..., int], trees: tuple[GateSide, GateSide], capsys: pytest.CaptureFixture[str]
) -> None:
    change_adam(trees)

    code = gate("--only", "kernel/*", costs=lambda side, *_: 1.0 if side == "base" else None)

    assert code == 3
    assert "it is not there" in capsys.readouterr().out


def test_one_more_operator_or_import_is_a_finding() -> None:
    more = _exact("operators/CartPole-v1", {"add": 4}, {"add": 4, "item": 1})["gate"]
    other = _exact("operators/CartPole-v1", {"add": 4, "mul": 1}, {"add": 4, "item": 1})["gate"]
    module = _exact("modules/CartPole-v1", {"numpy": 1, "a": 1}, {"numpy": 1, "torch._dynamo": 1})

    assert (more["verdict"], more["note"]) == (rule.REGRESSION, "more: item +1")
    assert other["verdict"] == rule.PASS
    assert module["gate"]["verdict"] == rule.REGRESSION


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits on main, one on a branch from the first, and an uncommitted file."""
    tree = tmp_path / "repository"
    tree.mkdir()
    plant(tree)
    git(tree, "init", "-qb", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "one")
    git(tree, "branch", "side")
    plant(tree, "x = 2")
    git(tree, "commit", "-qam", "two")
    git(tree, "checkout", "-q", "side")
    (tree / "kernels" / "gae" / "op.py").write_text("z = 3")
    git(tree, "commit", "-qam", "three")
    (tree / "kernels" / "new.py").write_text("uncommitted = 4")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tree


def test_the_base_is_what_both_have_in_common(repository: Path) -> None:
    with revisions.sides(repository, "main", "side", worktree=False) as (base, head):
        assert (base.tree / "kernels" / "adam" / "numba_cpu.py").read_text() == "x = 1"
        assert (head.tree / "kernels" / "gae" / "op.py").read_text() == "z = 3"
        assert not (head.tree / "kernels" / "new.py").exists()
        folder = base.tree.parent
    assert not folder.exists()


def test_the_working_tree_takes_uncommitted_files(repository: Path) -> None:
    with revisions.sides(repository, "main", "HEAD", worktree=True) as (_, head):
        assert (head.tree / "kernels" / "new.py").exists()
        assert (head.tree / "fastppo" / "kernels").is_symlink()


@pytest.mark.parametrize(("base", "head"), [("nothing", "side"), ("main", "nothing")])
def test_an_unknown_revision_is_named(base: str, head: str, repository: Path) -> None:
    with (
        pytest.raises(UserError, match="'nothing' is not a revision"),
        revisions.sides(repository, base, head, worktree=False),
    ):
        pass


def test_no_commit_in_common_is_named(repository: Path) -> None:
    git(repository, "checkout", "-q", "--orphan", "apart")
    git(repository, "commit", "-qm", "apart")

    with (
        pytest.raises(UserError, match="no commit in common"),
        revisions.sides(repository, "main", "apart", worktree=False),
    ):
        pass


def test_a_killed_gate_is_cleaned_up_by_the_next(repository: Path, tmp_path: Path) -> None:
    dead, alive = (tmp_path / f"{revisions.PREFIX}{name}" for name in ("dead", "alive"))
    for folder, owner in ((dead, f"{os.getpid()} 1"), (alive, revisions._me())):
        folder.mkdir()
        (folder / revisions.OWNER).write_text(owner)

    revisions.remove_leftovers()

    assert (dead.exists(), alive.exists()) == (False, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gate", "main", "--rounds", "5"], "--rounds: 5 shows no slow-down"),
        (["gate", "main", "--tolerance", "2"], "--tolerance: 2.0 must lie between 0 and 1"),
        (["gate"], "BASE"),
        (["gate", "main", "--pairs", "20"], "--pairs: is called --rounds now"),
        (["gate", "main", "--command", "x"], "--metric: missing; --command goes with it"),
        (["gate", "main", "--metric", "x"], "--command: missing; --metric goes with it"),
        (["gate", "main", "--prepare", "x"], "--prepare: is for --command"),
        (["gate", "main", "--command", "'x", "--metric", "x"], '--command: "\'x": No closing'),
        (["gate", "main", "--screen", "--confirm", __file__], "--confirm: is the second run"),
        (["gate", "self-test", "--gates", "0"], "--gates: 0 must be 1 or above"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
