"""`fastppo compare`: its verdicts, its intervals, and whom it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fastppo.bench.compare import comparison
from fastppo.bench.report.data import ResultFile
from fastppo.errors import UserError

Record = dict[str, Any]
Make = Callable[..., Record]
Compare = Callable[..., int]
Capture = pytest.CaptureFixture[str]
SMALL = ("fastppo", "reference")


def test_a_regression_is_exit_code_1_and_named(
    run: Compare, launched: Make, train_record: Make, tmp_path: Path, capsys: Capture
) -> None:
    record, slower = train_record(names=SMALL), train_record({"fastppo": 0.7}, seed=1, names=SMALL)
    target = tmp_path / "compare.md"

    assert run(launched(record), launched(slower), "--md", str(target)) == 1

    out = capsys.readouterr().out
    assert "REGRESSION: of 4 results 2 REGRESSION, 2 INCONCLUSIVE" in out
    assert "measure both in one sitting: `fastppo bench train --impl`" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert out.isascii()
    text = target.read_text()
    assert text.startswith("**REGRESSION")
    assert "| fastppo | 7," in text
    assert run(launched(record), launched(slower), "--tolerance", "0.2", "--md", str(target)) == 1
    assert "<summary>2 results that passed or are controls</summary>" in target.read_text()


@pytest.mark.parametrize("machine", [0.92, 0.96, 1.0, 1.04, 1.08])
@pytest.mark.parametrize("kind", ["train", "kernel"])
def test_a_machine_of_another_speed_is_no_regression(
    machine: float,
    kind: str,
    run: Compare,
    launched: Make,
    train_record: Make,
    kernel_record: Make,
    capsys: Capture,
) -> None:
    """What slowed EnvPool alone, or a copy, as much as the code was not the code."""
    a, b = (
        train_record(seed=seed, names=SMALL) if kind == "train" else kernel_record(seed=seed)
        for seed in (4, 5)
    )
    a, b = launched(a), launched(b, machine=machine)

    # beyond the tolerance it is void, within it is divided out
    assert run(a, b) == (0 if 0.95 < machine < 1.05 else 4)
    capsys.readouterr()
    assert run(a, b, "--tolerance", "0.25") == 0
    assert "INCONCLUSIVE" not in capsys.readouterr().out


def test_a_machine_of_another_speed_hides_no_regression(
    run: Compare, launched: Make, train_record: Make
) -> None:
    slower = train_record({"fastppo": 0.7}, seed=1, names=SMALL)

    assert run(launched(train_record(names=SMALL)), launched(slower, machine=1.04)) == 1


def test_what_is_left_of_drift_is_no_regression(
    run: Compare, launched: Make, train_record: Make
) -> None:
    """Samples at 0.92, ceilings where they were: two sessions cannot tell that from noise."""
    record = launched(train_record(names=SMALL))
    slower = launched(train_record(names=SMALL), machine=0.92)
    for entry, before in zip(slower["results"], record["results"], strict=True):
        entry["train"]["ceiling_launches"] = before["train"]["ceiling_launches"]

    assert run(record, slower) == 0


def test_a_file_and_itself_again_pass(
    run: Compare, launched: Make, train_record: Make, capsys: Capture
) -> None:
    again = launched(train_record(seed=5, names=SMALL))

    assert run(launched(train_record(seed=4, names=SMALL)), again, "--tolerance", "0.2") == 0
    assert "4 PASS" in capsys.readouterr().out
    assert run(again, again) == 0


def test_what_settles_nothing_is_exit_code_5_if_strict(
    run: Compare, launched: Make, train_record: Make
) -> None:
    record = launched(train_record(names=SMALL))

    assert run(record, record) == 0
    assert run(record, record, "--strict") == 5
    assert run(record, record, "--strict", "--tolerance", "0.2") == 0


@pytest.mark.parametrize(
    ("speed", "code", "lost"),
    [
        (1.0, 0, "| head -c 1"),
        pytest.param(0.5, 1, "| head -c 1", marks=pytest.mark.slow),
        pytest.param(1.0, 0, "> /dev/full", marks=pytest.mark.slow),
        pytest.param(0.5, 1, "> /dev/full", marks=pytest.mark.slow),
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
    run: Compare, launched: Make, kernel_record: Make, capsys: Capture
) -> None:
    assert run(kernel_record(), kernel_record(speed=1.5, seed=1)) == 0
    assert "8 IMPROVED" in capsys.readouterr().out
    assert run(kernel_record(), kernel_record(speed=0.7, seed=1)) == 1
    assert run(launched(kernel_record()), launched(kernel_record(speed=0.8, seed=1))) == 1


def test_one_launch_is_no_interval(run: Compare, kernel_record: Make, capsys: Capture) -> None:
    run(kernel_record(), kernel_record(seed=1))

    out = " ".join(capsys.readouterr().out.split())
    assert "95%" not in out
    assert "Fewer than 3 launches on a side, so no interval, in 24 of 24 results" in out


def test_a_machine_that_changed_speed_voids_the_comparison(
    run: Compare, kernel_record: Make, capsys: Capture
) -> None:
    moved = kernel_record(speed=0.7, copy=0.7, seed=1)

    assert run(kernel_record(), moved) == 4
    assert "VOID: the machine alone was 0.70 times as fast in B" in capsys.readouterr().out
    assert run(kernel_record(), moved, "--allow-mismatch") == 1


def test_the_ceiling_of_a_training_run_is_a_control(
    run: Compare, train_record: Make, launched: Make
) -> None:
    record = train_record(names=SMALL)
    assert run(launched(record), launched(record, machine=0.8)) == 4
    for one in (moved := deepcopy(record))["results"]:
        one["train"]["ceilings"]["envpool"] *= 0.8  # an older file, without launches

    assert run(record, moved) == 4


def test_one_task_whose_control_moved_far_is_not_judged(
    run: Compare, launched: Make, train_record: Make, capsys: Capture
) -> None:
    record = launched(train_record(names=SMALL))
    third = deepcopy(record["results"][:2])
    for entry in third:
        entry["id"] = "train/Ant-v4/8x128"
    record["results"] += third
    moved = deepcopy(record)
    for entry in moved["results"][-2:]:
        entry["train"]["ceiling_launches"]["envpool"] = [1.0]

    assert run(record, moved) == 0

    out = " ".join(capsys.readouterr().out.split())
    assert "cannot tell: fastppo on train/Ant-v4/8x128: the machine alone was 0.00 times" in out


def test_learning_and_environments_compare(
    run: Compare, learn_record: Record, env_record: Record
) -> None:
    assert run(learn_record, learn_record) == 0
    assert run(env_record, env_record) == 0


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
    run: Compare,
    train_record: Make,
    capsys: Capture,
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


def test_another_seed_is_the_same_work(run: Compare, train_record: Make) -> None:
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
    name: str, message: str, run: Compare, bad_files: dict[str, Any]
) -> None:
    if name == "locked.json" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    with pytest.raises(UserError, match=message) as refusal:
        run(bad_files["good"], bad_files["folder"] / name)
    assert "\n" not in str(refusal.value)


def test_nothing_in_common_and_bad_options_are_one_line(
    run: Compare, train_record: Make, kernel_record: Make
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


def test_the_interval_does_not_depend_on_what_else_is_compared(
    train_record: Make, launched: Make
) -> None:
    a, b = ResultFile(launched(train_record())), ResultFile(launched(train_record(seed=1)))
    fourth = [ResultFile(run.record | {"results": run.record["results"][3:4]}) for run in (a, b)]

    (alone,) = comparison.compare(fourth[0], fourth[1], 0.05).rows
    assert comparison.compare(a, b, 0.05).rows[3].ratio == alone.ratio


def test_a_void_comparison_has_no_row_that_passes(
    run: Compare, kernel_record: Make, capsys: Capture, tmp_path: Path
) -> None:
    moved = kernel_record(speed=0.7, copy=0.7, seed=1)
    outputs = {name: str(tmp_path / f"c.{name}") for name in ("md", "html", "json")}
    flags = [word for name, path in outputs.items() for word in (f"--{name}", path)]

    assert run(kernel_record(), moved, *flags) == 4

    shown = [capsys.readouterr().out, *(Path(path).read_text() for path in outputs.values())]
    for text in shown:
        assert "PASS" not in text
        assert "REGRESSION" not in text
        assert "void" in text
    record = json.loads(Path(outputs["json"]).read_text())
    assert {row["verdict"] for row in record["rows"]} <= {"void", "control"}
    assert record["exit_code"] == 4


def test_every_output_has_the_rows_and_the_verdict(
    run: Compare, train_record: Make, launched: Make, tmp_path: Path
) -> None:
    a, b = train_record(names=SMALL), train_record({"fastppo": 0.5}, seed=1, names=SMALL)
    paths = {name: tmp_path / f"c.{name}" for name in ("json", "html", "junit", "md")}
    flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]

    assert run(launched(a), launched(b), *flags) == 1

    record = json.loads(paths["json"].read_text())
    assert record["schema"] == "fastppo.compare/1"
    assert record["exit_code"] == 1
    ours = [row for row in record["rows"] if row["impl"] == "fastppo"]
    assert [row["verdict"] for row in ours] == ["REGRESSION"] * 2
    assert ours[0]["ratio"]["value"] == pytest.approx(0.5, abs=0.1)
    assert ours[0]["b"] == pytest.approx(0.5 * ours[0]["a"], rel=0.1)
    page = paths["html"].read_text()
    assert record["verdict"].partition(":")[0] == "REGRESSION"
    assert "REGRESSION: of 4 results" in page
    assert "<script" not in page
