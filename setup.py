"""Where the packages are; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

FOLDERS = {"fastppo": "fastppo", "fastppo.kernels": "kernels", "fastppo.bench": "bench"}

setup(
    # Path.rglob follows no symlink, so fastppo/ does not list kernels/ and bench/ again
    packages=[
        ".".join((package, *path.parent.relative_to(folder).parts))
        for package, folder in FOLDERS.items()
        for path in sorted(Path(folder).rglob("__init__.py"))
    ],
    package_dir=FOLDERS,
)
