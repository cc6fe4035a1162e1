"""The error rates that docs/benchmarking.md publishes, asserted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastppo import cli
from fastppo.bench.results import parity_simulate as simulate
from fastppo.bench.results.parity import LATE, Runs, combined, judge, weigh
from fastppo.bench.results.parity_simulate import BASE_STEPS, LEARNERS, Learner
from fastppo.bench.results.simulation import ParityArgs

PAGE = Path(__file__).parents[3] / "docs" / "benchmarking.md"
WRONG = [one for one in LEARNERS if one.wrong]
EQUAL = [one for one in LEARNERS if not one.wrong]
TRIALS = 2000


def name(learner: Learner) -> str:
    return f"{learner.name} {learner.fails:g} {learner.horizon:g}"


def rates(learner: Learner, seeds: int, spread: float = 0.3) -> simulate.ParityCell:
    rng = np.random.default_rng(11)
    return simulate.simulate(learner, spread, seeds, trials=TRIALS, rng=rng)


@pytest.mark.parametrize("learner", WRONG, ids=name)
@pytest.mark.parametrize("spread", simulate.SPREADS)
def test_a_learner_on_a_margin_or_beyond_seldom_passes(learner: Learner, spread: float) -> None:
    """In 2% of studies by the published table; four standard errors of this one are allowed."""
    for seeds in simulate.SEEDS:
        assert rates(learner, seeds, spread).passed <= 0.02 + 4 * (0.02 / TRIALS) ** 0.5


@pytest.mark.parametrize("learner", EQUAL, ids=name)
def test_an_equal_learner_is_hardly_ever_failed(learner: Learner) -> None:
    for seeds in simulate.SEEDS:
        assert rates(learner, seeds).failed <= 0.003


def test_rare_late_seeds_are_bounded_as_failures_are() -> None:
    """A restricted mean of 1.5 times the base's, by one seed in four that gets there too late."""
    rng, horizon = np.random.default_rng(3), 3.5 * BASE_STEPS
    for seeds in (20, 40):
        shape = TRIALS, seeds
        base = simulate.draw(EQUAL[0], 0.2, shape, rng)
        ours = simulate.draw(EQUAL[0], 0.2, shape, rng)
        late = np.where(rng.random(shape) < 0.25, 0.999 * horizon, ours.steps)
        said = verdicts(replace(ours, steps=late), base, horizon, seeds)
        assert np.mean(said == "passed") <= 0.05


def verdicts(ours: Runs, base: Runs, horizon: float, seeds: int) -> NDArray[np.str_]:
    """Of every study at once."""
    found = weigh(ours, base, horizon)
    all_passed = np.logical_and.reduce([one.passed for one in found])
    any_failed = np.logical_or.reduce([one.failed for one in found])
    passed, failed = combined(all_passed, any_failed, seeds)
    return np.select([passed, failed], ["passed", "failed"], "cannot tell")


def test_twenty_seeds_pass_an_equal_learner_that_never_fails() -> None:
    for equal in EQUAL[:3]:  # however long the runs: 3, 5 and 10 times the base's steps
        assert rates(equal, 20, 0.2).passed > 0.95
        assert rates(equal, 20, 0.3).passed > 0.75
    assert rates(EQUAL[0], 40, 0.3).passed > 0.99
    assert rates(EQUAL[0], 10).passed == 0


def test_a_learner_far_beyond_a_margin_fails() -> None:
    twice, low, half = WRONG[-3:]

    assert rates(twice, 20).failed > 0.75
    assert rates(low, 10).failed > 0.99
    assert rates(half, 40).failed > 0.9


def test_simulated_studies_get_the_verdict_that_bench_learn_gives() -> None:
    def study(of: Runs, i: int) -> Runs:
        first, final, steps, reached = map(np.asarray, (of.first, of.final, of.steps, of.reached))
        return Runs(first[i], final[i], steps[i], reached[i])

    rng, seen = np.random.default_rng(5), set()
    for learner in LEARNERS:
        base = Learner(name="base", fails=learner.base_fails, horizon=learner.horizon)
        ours, theirs = (simulate.draw(one, 0.3, (20, 20), rng) for one in (learner, base))
        horizon = learner.horizon * BASE_STEPS
        for i, said in enumerate(verdicts(ours, theirs, horizon, 20)):
            assert judge(study(ours, i), study(theirs, i), horizon).verdict == said
            seen.add(str(said))
    assert seen == {"passed", "failed", "cannot tell"}


def test_a_simulated_learner_is_what_its_name_says() -> None:
    rng = np.random.default_rng(8)
    for learner in WRONG:
        drawn = simulate.draw(learner, 0.2, (50_000, 1), rng)
        ratio = np.mean(np.minimum(drawn.steps, LATE * BASE_STEPS)) / BASE_STEPS
        if learner.name == "env steps 1.5 times":
            assert ratio == pytest.approx(1.5, rel=0.03)
        assert np.mean(drawn.reached) == pytest.approx(1 - learner.fails, abs=0.01)


def test_command_prints_writes_and_repeats_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for file in ("a.md", "b.md"):
        args = ["bench", "parity", "--trials", "5", "--md", str(tmp_path / file)]
        assert cli.main(args) == 0
        told.append(capsys.readouterr().out)

    assert told[0] == told[1]
    assert told[0].endswith((tmp_path / "a.md").read_text())
    assert told[0].count("\n") == 4 + len(LEARNERS) * len(simulate.SPREADS)


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (["--trials", "0"], "--trials: 0"),
        (["--seed", "-1"], "--seed: -1"),
        (["--md", "/nowhere/at/all.md"], "--md: /nowhere/at"),
    ],
)
def test_a_mistake_is_one_line(
    args: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "parity", *args]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"fastppo: error: {field}")
    assert (told.err.count("\n"), told.out) == (1, "")


@pytest.mark.slow
def test_published_table_is_the_one_that_the_command_prints() -> None:
    cells = list(simulate.table(ParityArgs().trials, seed=1))

    assert simulate.markdown(cells) in PAGE.read_text()
    assert max(cell.passed for cell in cells if cell.learner.wrong) <= 0.02
    assert max(cell.failed for cell in cells if not cell.learner.wrong) <= 0.001
