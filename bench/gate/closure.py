"""Whether two trees run the same code for a benchmark: its sources, without what is only read.

A benchmark's closure is what its entry modules import, directly or not, inside functions as well.
Kernels are found by name at run time, so of an operation the whole folder counts.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOTS = {"kernels": "fastppo.kernels", "bench": "fastppo.bench", "fastppo": "fastppo"}
"""Folders of a tree, and the packages that they are."""


def entry_modules(name: str) -> tuple[str, ...]:
    """The modules whose closure decides a benchmark."""
    kind, _, rest = name.partition("/")
    if kind == "kernel":
        return (f"fastppo.kernels.{rest.partition('/')[0]}.op",)
    if kind in ("start", "memory", "modules"):
        return ("fastppo.cli", "fastppo.run.session", "fastppo.run.args")
    # fastppo.train: its name in older trees
    return ("fastppo.trainer", "fastppo.train", "fastppo.presets", "fastppo.tasks")


@cache
def digest(tree: Path, entries: tuple[str, ...]) -> str:
    """SHA-256 of the closure of some modules: names, and syntax without docstrings and comments."""
    found = hashlib.sha256()
    for name in closure(tree, entries):
        path = modules(tree).get(name)
        found.update(f"{name} {'' if path is None else _syntax(path)}".encode())
    return found.hexdigest()


def closure(tree: Path, entries: Iterable[str]) -> list[str]:
    """The modules that some modules need, sorted; those that are not there are named too."""
    known, seen, waiting = modules(tree), set[str](), list(entries)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            waiting += [other for other in _imports(known[name]) if other in known]
            waiting += _folder_of_kernel(name, known)
            waiting += [parent for parent in [name.rpartition(".")[0]] if parent in known]
    return sorted(seen)


@cache
def modules(tree: Path) -> dict[str, Path]:
    """Every module of a tree, by name."""
    found = {}
    for folder, package in ROOTS.items():
        for path in (tree / folder).rglob("*.py"):
            parts = path.relative_to(tree / folder).with_suffix("").parts
            if folder == "fastppo" and parts[0] in ("kernels", "bench"):
                continue  # links to the other two
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@cache
def _imports(path: Path) -> frozenset[str]:
    """Every name that a module imports: modules, and what may be one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return frozenset(found)


def _folder_of_kernel(name: str, known: dict[str, Path]) -> Iterator[str]:
    parts = name.split(".")
    if parts[:2] == ["fastppo", "kernels"] and len(parts) > 3 and parts[2] != "tools":
        prefix = ".".join(parts[:3]) + "."
        unused = (f"{prefix}cases", f"{prefix}shipped")
        yield from (other for other in known if other.startswith(prefix) and other not in unused)


@cache
def _syntax(path: Path) -> str:
    """Digest of a module's syntax tree; line numbers, comments and docstrings do not count."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    """A docstring, or the text behind a constant or a field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
