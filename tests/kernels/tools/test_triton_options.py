"""Every launch names the options that Triton would otherwise choose by its version."""

import ast
from pathlib import Path

from fastppo.kernels.tools import triton_options

FOLDER = Path(triton_options.__file__).parents[1]


def test_every_launch_passes_the_options() -> None:
    launches = [
        (path.name, call)
        for path in sorted(FOLDER.rglob("triton_*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Subscript)
    ]
    without = [
        f"{name}:{call.lineno}"
        for name, call in launches
        if not any(k.arg is None and ast.unparse(k.value) == "OPTIONS" for k in call.keywords)
    ]

    assert len(launches) >= 18
    assert not without
