"""`fastppo compare`: its verdicts, its intervals, and whom it refuses."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.compare import command as compare
from fastppo.bench.report.data import Run
from fastppo.errors import UserError

Record = dict[str, Any]
Make = Callable[..., Record]
SMALL = ("fastppo", "reference")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Writes two records and compares them through the command's own options."""

    def compare_files(a: Record | Path, b: Record | Path, *options: str) -> int:
        paths = []
        for name, one in (("a", a), ("b", b)):
            path = one if isinstance(one, Path) else tmp_path / f"{name}.json"
            if not isinstance(one, Path):
                path.write_text(json.dumps(one))
            paths.append(str(path))
        parser = argparse.ArgumentParser()
        compare.add_arguments(parser)
        return compare.run(parser.parse_args([*paths, *options]))

    return compare_files


def test_a_regression_is_exit_code_1_and_named(
    run: Callable[..., int], train_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = train_record({"fastppo": 0.8}, seed=1, names=SMALL)
    target = tmp_path / "compare.md"

    assert run(train_record(names=SMALL), slower, "--tolerance", "0.1", "--md", str(target)) == 1

    out = capsys.readouterr().out
    assert "REGRESSION: of 4 results 2 REGRESSION" in out
    assert "drift between the two" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert out.isascii()
    text = target.read_text()
    assert text.startswith("**REGRESSION")
    assert "| fastppo | 7," in text
    assert "<summary>2 results that passed or are controls</summary>" in text


def test_a_file_and_itself_again_pass(run: Callable[..., int], train_record: Make) -> None:
    again = train_record(seed=5, names=SMALL)

    assert run(train_record(seed=4, names=SMALL), again, "--tolerance", "0.2") == 0
    assert run(again, again) == 0


@pytest.mark.parametrize(
    ("speed", "code", "lost"),
    [
        (1.0, 0, "| head -c 1"),
        pytest.param(0.8, 1, "| head -c 1", marks=pytest.mark.slow),
        pytest.param(1.0, 0, "> /dev/full", marks=pytest.mark.slow),
        pytest.param(0.8, 1, "> /dev/full", marks=pytest.mark.slow),
        pytest.param(1.0, 0, ">&-", marks=pytest.mark.slow),
    ],
)
def test_the_exit_code_is_the_verdict_wherever_the_table_goes(
    speed: float, code: int, lost: str, train_record: Make, tmp_path: Path
) -> None:
    """`compare a a | head -1` was 1."""
    records = train_record(names=SMALL), train_record({"fastppo": speed}, seed=1, names=SMALL)
    for name, record in zip("ab", records, strict=True):
        (tmp_path / name).write_text(json.dumps(record))
    line = f"{sys.executable} -m fastppo compare {tmp_path}/a {tmp_path}/b --tolerance 0.1 {lost}"

    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_kernels_compare_by_time(
    run: Callable[..., int], kernel_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(kernel_record(), kernel_record(speed=1.5, seed=1)) == 0
    assert "8 IMPROVED" in capsys.readouterr().out
    assert run(kernel_record(), kernel_record(speed=0.7, seed=1)) == 1


def test_a_machine_that_changed_speed_voids_the_comparison(
    run: Callable[..., int], kernel_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = kernel_record(speed=0.7, copy=0.7, seed=1)

    assert run(kernel_record(), moved) == 4
    assert "VOID: the machine alone was 0.70 times as fast in B" in capsys.readouterr().out
    assert run(kernel_record(), moved, "--allow-mismatch") == 1


def test_the_ceiling_of_a_training_run_is_a_control(
    run: Callable[..., int], train_record: Make
) -> None:
    moved = train_record(names=SMALL)
    for one in moved["results"]:
        one["train"]["ceilings"]["envpool"] *= 0.8

    assert run(train_record(names=SMALL), moved) == 4


def test_learning_and_environments_compare(
    run: Callable[..., int], learn_record: Record, env_record: Record
) -> None:
    assert run(learn_record, learn_record) == 0
    assert run(env_record, env_record) == 0


def test_results_of_one_file_are_listed(
    run: Callable[..., int], train_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = train_record(names=SMALL, hard=True)
    fewer["results"] = fewer["results"][:1]

    run(train_record(names=SMALL), fewer)

    out = " ".join(capsys.readouterr().out.split())
    assert "only in A: reference on train/Pong-v5/8x128" in out
    assert "not measured in B: sb3 on train/Walker2d-v4/8x128: crashed: exit code -9" in out


def change(record: Record, *path: Any, to: Any) -> Record:
    changed = deepcopy(record)
    target: Any = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = to
    return changed


DIFFERENCES: list[tuple[tuple[Any, ...], Any, str]] = [
    (("machine",), {"fingerprint": "other", "cpu": "Xeon"}, "machine.cpu 'AMD EPYC' and 'Xeon'"),
    (("results", 0, "train", "work", "epochs"), 10, "work.epochs 4 and 10"),
    (("results", 0, "train", "config", "num_envs"), 64, "config.num_envs 8 and 64"),
]


@pytest.mark.parametrize(("path", "value", "message"), DIFFERENCES)
def test_what_is_not_alike_is_refused_or_spelled_out(
    path: tuple[Any, ...],
    value: Any,
    message: str,
    run: Callable[..., int],
    train_record: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = train_record(names=SMALL)
    other = change(record, *path, to=record["machine"] | value if path == ("machine",) else value)

    with pytest.raises(UserError, match="compare all the same with --allow-mismatch") as refusal:
        run(record, other)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert run(record, other, "--allow-mismatch") == 0
    assert f"mismatch: {message}" in capsys.readouterr().out.replace("\n", " ").replace(
        "train/Pong-v5/8x128 fastppo: ", ""
    )


def test_another_seed_is_the_same_work(run: Callable[..., int], train_record: Make) -> None:
    record = train_record(names=SMALL)

    assert run(record, change(record, "results", 0, "train", "config", "seed", to=2)) == 0


@pytest.fixture
def bad_files(tmp_path: Path, train_record: Make) -> Iterator[dict[str, Any]]:
    record = train_record(names=SMALL)
    whole = json.dumps(record)
    for name, text in (
        ("cut.json", whole[:5000]),
        ("other.json", json.dumps(record | {"schema": "fastppo.result/2"})),
        ("damaged.json", json.dumps(change(record, "results", 0, "launches", to="none"))),
        ("binary.json", "\x00\x01"),
    ):
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.json").write_bytes(b'{"schema": "\xe4"}')
    locked = tmp_path / "locked.json"
    locked.write_text(whole)
    locked.chmod(0)
    yield {"good": record, "folder": tmp_path}
    locked.chmod(0o600)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.json", "is no JSON .* cut short"),
        ("other.json", "schema is 'fastppo.result/2'"),
        ("damaged.json", r"breaks fastppo.result/1: .*launches"),
        ("binary.json", "is no JSON"),
        ("latin.json", "is no JSON|cannot be read"),
        ("missing.json", "cannot be read .*no such file"),
        ("", "cannot be read .*directory"),
        ("locked.json", "cannot be read .*permission"),
    ],
)
def test_a_bad_file_is_one_line(
    name: str, message: str, run: Callable[..., int], bad_files: dict[str, Any]
) -> None:
    if name == "locked.json" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    with pytest.raises(UserError, match=message) as refusal:
        run(bad_files["good"], bad_files["folder"] / name)
    assert "\n" not in str(refusal.value)


def test_nothing_in_common_and_bad_options_are_one_line(
    run: Callable[..., int], train_record: Make, kernel_record: Make
) -> None:
    record = train_record(names=SMALL)
    twice = deepcopy(record)
    twice["results"].append(twice["results"][0])
    with pytest.raises(UserError, match="have no result in common"):
        run(record, kernel_record())
    with pytest.raises(UserError, match="kind 'profile' holds no result to compare"):
        run(record, record | {"kind": "profile", "results": []})
    with pytest.raises(UserError, match="fastppo twice"):
        run(record, twice)
    for tolerance in ("-0.1", "nan", "1"):
        with pytest.raises(UserError, match="--tolerance"):
            run(record, record, "--tolerance", tolerance)


def test_the_interval_does_not_depend_on_what_else_is_compared(train_record: Make) -> None:
    a, b = Run(train_record()), Run(train_record(seed=1))
    fourth = [Run(run.record | {"results": run.record["results"][3:4]}) for run in (a, b)]

    (alone,) = compare.compare(fourth[0], fourth[1], 0.05).rows
    assert compare.compare(a, b, 0.05).rows[3].ratio == alone.ratio
