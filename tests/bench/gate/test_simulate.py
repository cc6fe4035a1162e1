"""The error rates that docs/gate.md publishes, asserted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fastppo import cli
from fastppo.bench.gate import noise, rule, simulate
from fastppo.bench.gate.args import SimulateArgs
from fastppo.bench.gate.noise import MACHINES, Machine
from fastppo.bench.gate.simulate import GateCell

QUIET, SHARED, BAD = MACHINES
PAGE = Path(__file__).parents[3] / "docs" / "gate.md"


def cell(machine: Machine, slowdown: float, trials: int = 4000) -> GateCell:
    rng = np.random.default_rng(5)
    return simulate.simulate(
        machine, slowdown, trials=trials, tolerance=0.05, rounds=20, rng=rng
    )  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_equal_code_is_seldom_suspected_and_never_convicted(machine: Machine) -> None:
    found = cell(machine, 1.0, trials=20_000)

    # what is left is placement: one build in a hundred moves by 10%
    assert found.part(rule.SUSPECT) <= 0.005
    assert found.part(rule.REGRESSION) <= 2 / 20_000


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_noise_alone_is_not_suspected_even_at_the_tolerance(machine: Machine) -> None:
    """Without placement, the worst case that the rule bounds: exactly as slow as is allowed."""
    trials, rng = 20_000, np.random.default_rng(7)
    still = replace(machine, odd_builds=0.0, placement=0.0)
    differences = noise.pairs(still, 1.05, (trials, 20), rng)

    said, _ = rule.decide(differences, 0.05, rule.looks())

    slack = 4 * (rule.FALSE_ALARM / trials) ** 0.5
    assert (said == rule.SUSPECT).mean() <= rule.FALSE_ALARM + slack


@pytest.mark.parametrize(
    ("machine", "slowdown", "power"),
    [(QUIET, 1.1, 0.95), (QUIET, 1.2, 0.99), (SHARED, 1.2, 0.97), (BAD, 1.5, 0.97)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_slower_code_is_convicted(machine: Machine, slowdown: float, power: float) -> None:
    assert cell(machine, slowdown).part(rule.REGRESSION) >= power


def test_a_machine_too_noisy_to_tell_says_so() -> None:
    found = cell(BAD, 1.1)

    assert found.part(rule.INCONCLUSIVE) > 0.5
    assert found.part(rule.PASS) < 0.1


@pytest.mark.parametrize(("controls", "most"), [(1, 0.04), (9, 0.002)])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_equal_controls_seldom_void_a_run(machine: Machine, controls: int, most: float) -> None:
    runs = noise.pairs(machine, 1.0, (1000 * controls, 20), np.random.default_rng(9))

    moved = [rule.moved(run, 0.05) for run in runs.reshape(1000, controls, 20)]

    assert np.mean(moved) <= most


def test_the_least_of_the_samples_is_drawn_as_if_each_were() -> None:
    rng = np.random.default_rng(2)
    only_samples = Machine(name="", process=0, sample=1, drift=0, bursts=0, burst=0)

    drawn = noise.launches(only_samples, (20_000, 1), rng)[:, 0]
    each = np.abs(rng.standard_t(3, (20_000, noise.SAMPLES))).min(axis=1)

    assert stats.ks_2samp(drawn, each).pvalue > 1e-3


def test_first_and_second_run_add_up() -> None:
    found = cell(SHARED, 1.1)
    first = (rule.PASS, rule.IMPROVED, rule.INCONCLUSIVE, rule.SUSPECT)

    assert sum(found.counts.get(verdict, 0) for verdict in first) == found.trials
    second = found.counts[rule.FLAKY] + found.counts[rule.REGRESSION]
    assert second == found.counts[rule.SUSPECT]


def test_pairs_take_turns_and_carry_the_effect() -> None:
    """The drift of a steadily slowing machine has one sign in AB and the other in BA."""
    silent = Machine(
        name="silent", process=0, sample=0, drift=0, bursts=0, burst=0, odd_builds=0, placement=0
    )

    assert noise.pairs(silent, 1.1, (3, 4), np.random.default_rng(0)) == pytest.approx(np.log(1.1))


def test_command_prints_writes_and_repeats_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for name in ("a.md", "b.md"):
        args = ["gate", "simulate", "--trials", "50", "--md", str(tmp_path / name)]
        assert cli.main(args) == 0
        told.append(capsys.readouterr().out)

    assert told[0] == told[1] == (tmp_path / "a.md").read_text()
    assert told[0].count("\n") == 2 + len(MACHINES) * len(simulate.SLOWDOWNS)


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (["--trials", "0"], "--trials: 0"),
        (["--rounds", "11"], "--rounds: 11"),
        (["--tolerance", "nan"], "--tolerance: nan"),
        (["--tolerance", "0"], "--tolerance: 0"),
        (["--seed", "-1"], "--seed: -1"),
        (["--md", "/nowhere/at/all.md"], "--md: /nowhere/at"),
    ],
)
def test_a_mistake_is_one_line(
    args: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gate", "simulate", *args]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"fastppo: error: {field}")
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_word_that_is_not_simulate_is_a_revision(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gate", "simulat"]) == 2
    assert "BASE: 'simulat' is not a revision" in capsys.readouterr().err


@pytest.mark.slow
def test_published_table_is_the_one_that_the_command_prints() -> None:
    cells = list(simulate.table(SimulateArgs().trials, 0.05, rule.ROUNDS, seed=1))

    assert simulate.markdown(cells) in PAGE.read_text()
