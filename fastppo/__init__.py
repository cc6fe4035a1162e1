"""A PPO trainer and benchmark suite built around fused kernels.

`train`, `load_policy`, `evaluate`, `Config`, `SavedPolicy` and the errors are loaded when they are
first named: this module imports nothing that takes time. docs/python.md shows them.
"""

__version__ = "0.1.0"

_HOMES = {
    "train": "run.library",
    "load_policy": "run.library",
    "evaluate": "run.library",
    "Run": "run.library",
    "SavedPolicy": "saved_policy",
    "Config": "config",
    "UserError": "errors",
    "MachineError": "errors",
    "Diverged": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
