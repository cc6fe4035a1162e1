"""The pytest fixtures, each in a session of its own as another project would have it."""

import json
from xml.etree import ElementTree

import pytest

from fastppo.bench.gate import rule
from fastppo.bench.plugin import measures, private

pytest_plugins = "pytester"

AB = """
import json
calls = []

def work(n):
    def run():
        calls.append(n)
        return sum(range(n))
    return run

def test_slower(ab):
    ab(work(20_000), work(40_000))

def test_faster(ab):
    found = ab(work(40_000), work(20_000))
    assert found is None or (found.verdict in ("PASS", "IMPROVED") and found.ratio < 0.8)
"""


def session(pytester: pytest.Pytester, text: str, *words: str) -> pytest.RunResult:
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *words)


def test_the_slower_one_fails_in_one_sentence(pytester: pytest.Pytester) -> None:
    done = session(pytester, AB, "--junit-xml=out.xml", "--benchmark-json=out.json")

    done.assert_outcomes(passed=1, failed=1)
    (failure,) = ElementTree.parse(pytester.path / "out.xml").findall(".//failure")
    assert str(failure.get("message")).startswith("Failed: REGRESSION: head costs ")
    rows = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    by_name = {row["name"]: row for row in rows}
    assert set(by_name) == {f"test_{x}@{side}" for x in ("slower", "faster")
                            for side in ("base", "head")}  # fmt: skip
    slower = by_name["test_slower@head"]
    assert slower["extra_info"]["fastppo"]["verdict"] == rule.REGRESSION
    assert slower["stats"]["rounds"] == slower["extra_info"]["fastppo"]["pairs"]
    assert slower["stats"]["median"] > 1.3 * by_name["test_slower@base"]["stats"]["median"]
    assert slower["group"] == by_name["test_slower@base"]["group"]


def test_pytest_benchmark_reads_what_is_recorded(pytester: pytest.Pytester) -> None:
    session(pytester, AB, "--benchmark-json=out.json")
    done = pytester.run("pytest-benchmark", "compare", str(pytester.path / "out.json"))
    done.stdout.fnmatch_lines(["*test_slower@head*"])


@pytest.mark.parametrize("words", [("--benchmark-disable",), ("-p", "no:benchmark")])
def test_without_measuring_both_run_once(words: tuple[str, ...], pytester: pytest.Pytester) -> None:
    text = AB + "\ndef test_calls():\n    assert calls == [20_000, 40_000, 40_000, 20_000]\n"
    session(pytester, text, *words).assert_outcomes(passed=3)


def test_what_cannot_be_told_is_a_warning_or_a_failure() -> None:
    unclear = measures.PairedCalls([1.0, 2.0] * 6, [2.0, 1.0] * 6, 0.05, rule.INCONCLUSIVE)
    with pytest.warns(measures.GateWarning, match="INCONCLUSIVE: head costs 1.000"):
        unclear.judge(strict=False)
    with pytest.raises(pytest.fail.Exception, match="INCONCLUSIVE"):
        unclear.judge(strict=True)


def test_static_check_counts_exactly(pytester: pytest.Pytester) -> None:
    text = """
    import torch
    x = torch.ones(8)

    def test_reads_back(static_check):
        static_check(lambda: (x + x).sum().item())

    def test_allocates(static_check):
        static_check(lambda: x + x, allocated=31, operators=0)

    def test_breaks(static_check):
        def f():
            y = x + 1
            print(float(y.sum()))
            return y + 1
        static_check(f, graph_breaks=0, syncs=None)

    def test_is_right(static_check):
        counts = static_check(lambda: x + x, operators=1, allocated=32, graph_breaks=0)
        assert counts.operators == {"aten.add.Tensor": 1} and counts.allocated == 32
    """
    done = session(pytester, text)
    done.assert_outcomes(passed=1, failed=3)
    done.stdout.fnmatch_lines([
        "*waits for the device: 1, 0 allowed (aten._local_scalar_dense.default)",
        "*operators: 1, 0 allowed; bytes allocated: 32, 31 allowed",
        "*graph breaks: 1, 0 allowed",
    ])  # fmt: skip


def test_a_rate_is_recorded(pytester: pytest.Pytester) -> None:
    text = """
    import time

    def test_rate(rate_benchmark):
        def train():
            time.sleep(0.002)
            return 100
        rate = rate_benchmark(train, rounds=3)
        assert rate is None or 100 < rate < 50_000

    def test_none(rate_benchmark):
        rate_benchmark(lambda: 0)
    """
    done = session(pytester, text, "--benchmark-json=out.json")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*ValueError: the function returned 0;*"])
    (row,) = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    assert row["extra_info"]["fastppo"]["steps_per_s"] == pytest.approx(1 / row["stats"]["median"])


@pytest.mark.skipif(measures.has_gpu(), reason="there is a GPU")
def test_without_a_gpu_its_clock_skips(pytester: pytest.Pytester) -> None:
    done = session(pytester, "def test_it(gpu_benchmark):\n    gpu_benchmark(lambda: None)\n")
    done.assert_outcomes(skipped=1)


def test_the_private_names_are_there(request: pytest.FixtureRequest) -> None:
    """Red when a version of pytest-benchmark renames what `private` uses."""
    benchmark = request.getfixturevalue("benchmark")
    assert [name for name in private.KNOWN if not hasattr(benchmark, name)] == []
    assert hasattr(request.config, "_benchmarksession")
    benchmark.pedantic(lambda: None)


def test_the_plugin_imports_nothing_slow(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n\ndef test_it():\n"
        "    assert 'fastppo.bench.plugin.fixtures' in sys.modules\n"
        "    assert not {'torch', 'numba', 'envpool', 'numpy'} & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_numbers_that_are_off_are_named() -> None:
    with pytest.raises(ValueError, match="tolerance: 2 must lie between 0 and 1"):
        measures.compare(int, int, 2, 20)
    with pytest.raises(ValueError, match="rounds: 3 pairs show nothing"):
        measures.compare(int, int, 0.05, 3)
