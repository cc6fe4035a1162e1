"""No page and no docstring names a file that is not there."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"(?<![\w./*<-])((?:[\w.-]+/)+[\w.-]+\.(?:py|md|json|toml|jinja|yml))\b(?!/)")
BARE = re.compile(r"(?<![\w./*<>-])([a-z_]+\.(?:py|jinja))\b")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
ELSEWHERE = {
    "utils.py",
    "queue.py",
    "my_module.py",
    "ppo_atari_envpool.py",
    "ppo_continuous_action.py",
}
"""Of other projects and users, and one that there must not be."""
OURS = ("fastppo", "kernels", "bench", "tests", "docs")


def tracked() -> list[str]:
    answer = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return answer.stdout.split("\n")[:-1] or [
        str(path.relative_to(ROOT)) for folder in OURS for path in (ROOT / folder).rglob("*.*")
    ]


@cache
def basenames() -> frozenset[str]:
    return frozenset(Path(name).name for name in tracked())


def texts() -> Iterator[tuple[str, str]]:
    """Pages, and the docstrings and comments of sources, by where they are."""
    for name in tracked():
        path = ROOT / name
        if not path.is_file() or name.startswith("tests/test_docs"):
            continue
        if path.suffix == ".md" and name != "CHANGELOG.md":
            yield name, path.read_text()
        elif path.suffix == ".py" and not name.startswith("tests/"):
            source = path.read_text()
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    yield name, ast.get_docstring(node) or ""
            yield name, "\n".join(re.findall(r"#.*", source))


def missing(where: str, text: str) -> Iterator[str]:
    for name in NAMED.findall(text):
        # pages name tests from tests/ on, and a file of ours also as it is imported
        places = (ROOT, ROOT / "tests", ROOT / "tests" / "fastppo", (ROOT / where).parent)
        is_ours = name.split("/")[0] in OURS
        if (
            is_ours
            and name != "bench/peers/NAME.py"
            and not any((place / name).exists() for place in places)
        ):
            yield f"{where}: {name}"
    for name in BARE.findall(text):
        if name not in basenames() | ELSEWHERE:
            yield f"{where}: {name}"
    for target in LINK.findall(text) if where.endswith(".md") else ():
        if not ((ROOT / where).parent / target).exists():
            yield f"{where}: ({target})"


def test_every_file_that_is_named_is_there() -> None:
    assert sorted({line for where, text in texts() for line in missing(where, text)}) == []


def test_a_file_that_is_gone_is_found() -> None:
    text = "see `docs/gone.md`, `bench/report/html.py` and [this](gone.md)"

    assert list(missing("docs/x.md", text)) == ["docs/x.md: docs/gone.md", "docs/x.md: (gone.md)"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
