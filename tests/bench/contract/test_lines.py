"""Every line of a measured program against one table (issue 10, 14), which the page holds."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastppo import timing
from fastppo.bench.contract import PHASES
from fastppo.bench.contract import lines as contract_lines
from fastppo.bench.contract.lines import INFO, LINES, MAX_NUMBER, MAX_TEXT, WORK, Conversation
from fastppo.files import Unreadable

PAGE = Path(__file__).parents[3] / "docs" / "implementations.md"
WORK_LINE: dict[str, Any] = {
    "parameters": 10,
    "forward_flops": 20,
    "rows_per_update": 8,
    "minibatch_rows": 4,
    "epochs": 1,
    "gradient_steps_per_update": 2,
    "precision": "float32",
    "obs_bytes": 16,
    "trains_on_reset_rows": False,
    "wrappers": [],
    "network": "mlp 4 tanh, two trunks",
}
READY: dict[str, Any] = {"event": "ready", "work": WORK_LINE, "info": {}, "tunes": True}
UPDATE: dict[str, Any] = {"event": "update", "env_steps": 8}
TUNED: dict[str, Any] = {"event": "tuned", "torch_threads": 2, "rates": {"1": 10.0, "2": 20.5}}
WRONG_NUMBERS: tuple[Any, ...] = (-1, True, "8", None, [8], {}, 10**400, 2**53 + 1)


def said(*lines: dict[str, Any] | bytes) -> list[tuple[str, dict[str, Any]]]:
    talk = Conversation()
    return [
        talk.read(line if isinstance(line, bytes) else json.dumps(line).encode()) for line in lines
    ]


def test_the_phases_are_those_that_the_trainer_times_and_two_more() -> None:
    assert (*timing.PHASES, "logging", "other") == PHASES


def test_a_whole_conversation_is_heard_and_unknown_fields_are_left_out() -> None:
    (_, ready), (_, update), (_, tuned) = said(
        READY
        | {"work": WORK_LINE | {"colour": 1}, "info": {"version": "1", "mine": [1, {"a": 2}]}},
        UPDATE | {"phases": {"env": 0.1}, "return_mean": None, "weather": "fine"},
        TUNED,
    )

    assert ready["work"] == WORK_LINE
    assert ready["info"] == {"version": "1", "mine": [1, {"a": 2}]}
    assert update == {"env_steps": 8, "phases": {"env": 0.1}, "return_mean": None}
    assert tuned["rates"] == {"1": 10.0, "2": 20.5}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("env_steps", (0, 1.5, math.nan, *WRONG_NUMBERS)),
        ("episodes", (1.5, *WRONG_NUMBERS)),
        ("return_mean", (math.inf, 1e300, True, "1", [])),
        ("phases", ([], {"env": -0.1}, {"env": "1"}, {"lunch": 1}, {"env": math.nan}, 3)),
        ("ceiling", (None, 1, [], "sky")),
        ("device_memory_bytes", (-1, "1", 1.5, 10**300)),
    ],
)
def test_an_update_with_a_wrong_field_is_refused_and_the_field_named(
    field: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(Unreadable) as error:
            said(READY, UPDATE | {field: value})
        assert field in str(error.value) or "JSON" in str(error.value), value


@pytest.mark.parametrize(
    "info",
    [
        [], "text", 3, None,
        {"version": 3}, {"env_threads": "2"}, {"env_threads": -1}, {"torch_threads": 10**9},
        {"compile_s": "soon"}, {"compile_s": -1}, {"x": 10**60}, {"x": "a" * (MAX_TEXT + 1)},
        {"x": [[[[[[[[1]]]]]]]]},
    ],
)  # fmt: skip
def test_info_of_another_type_or_without_bounds_is_refused(info: Any) -> None:
    with pytest.raises(Unreadable, match="info"):
        said(READY | {"info": info})


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("value", [None, -1, 1.5, {"a": 1}, "x" * (MAX_TEXT + 1), [1]])
def test_work_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Unreadable, match=rf"work\.{name} must be"):
        said(READY | {"work": WORK_LINE | {name: value}})


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((UPDATE,), "before ready"),
        ((TUNED,), "before ready"),
        ((READY, READY), "ready was said before"),
        ((READY, TUNED, TUNED), "not promised"),
        ((READY | {"tunes": False}, TUNED), "not promised"),
        ((READY, TUNED | {"rates": {"many": 1.0}}), "rates must be"),
        ((READY, TUNED | {"rates": {"1": -1.0}}), "rates must be"),
        ((READY, TUNED | {"torch_threads": 0}), "torch_threads must be"),
        ((READY, {"event": "party"}), "event is none of"),
        ((READY, {"event": ["update"]}), "event is none of"),
        (({"event": "error", "message": 3},), "message must be"),
        ((b"\xff{}",), "no UTF-8"),
        ((b"[" * 100_000,), "nested too deeply"),
        ((b'{"event": "error", "message": "\\ud800"}',), "surrogate"),
        ((b'{"event": "update", "env_steps": 1' + b"0" * 5000 + b"}",), "beyond a double"),
        ((b"",), "no JSON object"),
    ],
)
def test_disorder_and_damage_are_refused(lines: tuple[Any, ...], told: str) -> None:
    with pytest.raises(Unreadable, match=told):
        said(*lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    st.sampled_from([READY, UPDATE, TUNED]),
    st.sampled_from(sorted({*LINES["update"], *WORK})),
    JSON,
)
def test_whatever_stands_in_a_field_is_refused_or_within_bounds(
    line: dict[str, Any], field: str, value: Any
) -> None:
    where = line | ({"work": WORK_LINE | {field: value}} if field in WORK else {field: value})
    first = [] if line is READY else [READY]
    try:
        *_, (kind, fields) = said(*first, where)
    except Unreadable:
        return
    assert all(LINES[kind][name].holds(fields[name]) for name in fields)
    if kind == "update":
        assert 1 <= fields["env_steps"] <= MAX_NUMBER
    json.dumps(fields, allow_nan=False)


def table() -> str:
    """The table of the page, as the rules have it."""
    rows = ["| line | field | must be |", "|---|---|---|"]
    groups = [(kind, "", rules) for kind, rules in LINES.items()]
    groups[1:1] = [("ready", "work.", WORK), ("ready", "info.", INFO)]
    for kind, where, rules in groups:
        for name, rule in rules.items():
            left_out = " (optional)" if rule.optional else ""
            rows.append(f"| `{kind}` | `{where}{name}`{left_out} | {rule.must} |")
    return "\n".join(rows)


def test_the_page_holds_the_table_and_the_limits() -> None:
    page = PAGE.read_text()

    assert table() in page, f"put this into {PAGE}:\n{table()}"
    assert f"{contract_lines.MAX_LINE:,} bytes" in page
    assert f"{MAX_NUMBER:,}" in page
