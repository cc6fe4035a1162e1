"""Every private name of pytest-benchmark that the fixtures use (5.3.1).

Where a version lacks one of them, or another plugin has taken its place (pytest-codspeed blocks
it, pytest-xdist disables it), nothing is recorded, and the fixtures say so.
"""

from collections.abc import Sequence
from typing import Any

import pytest

KNOWN = ("_make_stats", "_mode", "group", "extra_info", "name", "fullname")


def is_measuring(config: pytest.Config) -> bool:
    """Whether this session measures: not where benchmarks are disabled, or other tools count."""
    session = getattr(config, "_benchmarksession", None)
    return session is not None and not session.disabled


def record(
    request: pytest.FixtureRequest, rows: dict[str, Sequence[float]], info: dict[str, Any]
) -> None:
    """Adds rows to pytest-benchmark's table and JSON.

    Args:
        rows: seconds by name; one row is the test's own, several are a group.
        info: goes to `extra_info["fastppo"]` of every row.
    """
    from pytest_benchmark.fixture import BenchmarkFixture

    session = request.config._benchmarksession  # type: ignore[attr-defined]
    own = request.getfixturevalue("benchmark")
    for number, (name, seconds) in enumerate(rows.items()):
        fixture = own
        if number > 0:
            fixture = BenchmarkFixture(  # type: ignore[no-untyped-call]
                request.node,
                add_stats=session.benchmarks.append,
                logger=session.logger,
                warner=request.node.warn,
                disabled=session.disabled,
                **session.options,
            )
        if len(rows) > 1:
            fixture.group = fixture.fullname
            fixture.name += f"@{name}"
            fixture.fullname += f"@{name}"
        fixture.extra_info["fastppo"] = info
        fixture._mode = "fastppo"
        stats = fixture._make_stats(1)
        for one in seconds:
            stats.update(one)
