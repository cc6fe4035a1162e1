"""What the public functions refuse and how they say it, and which backend serves a call."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api, backends

CPU = torch.device("cpu")


def gae_arguments() -> dict[str, Any]:
    ends = torch.zeros(3, 2, dtype=torch.bool)
    return {
        "rewards": torch.zeros(3, 2),
        "values": torch.zeros(4, 2),
        "terminated": ends,
        "truncated": ends,
        "gamma": 0.99,
        "gae_lambda": 0.95,
    }


def loss_arguments() -> dict[str, Any]:
    names = ("new_values", "old_log_probs", "advantages", "returns", "old_values")
    return {
        **{name: torch.zeros(5) for name in names},
        "clip_coef": 0.2,
        "vf_coef": 0.5,
        "ent_coef": 0.01,
    }


def categorical_arguments() -> dict[str, Any]:
    actions = torch.zeros(5, dtype=torch.long)
    return {**loss_arguments(), "logits": torch.zeros(5, 4), "actions": actions}


def gaussian_arguments() -> dict[str, Any]:
    return {
        **loss_arguments(),
        "mean": torch.zeros(5, 3),
        "log_std": torch.zeros(3),
        "actions": torch.zeros(5, 3),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": torch.zeros(3)}, r"rewards has shape \[3\]: expected \[T, N\]"),
        ({"rewards": torch.zeros(0, 2)}, r"rewards has shape \[0, 2\]: .* no size 0"),
        ({"rewards": torch.zeros(3, 2, dtype=torch.long)}, "rewards has dtype torch.int64"),
        ({"values": torch.zeros(3, 2)}, r"values has shape \[3, 2\]: expected \[4, 2\]"),
        ({"values": torch.zeros(4, 2).double()}, "values has dtype torch.float64"),
        ({"terminated": torch.zeros(3, 2)}, "terminated has dtype torch.float32: .* torch.bool"),
        ({"truncated": torch.zeros(3, 2, device="meta").bool()}, "truncated is on meta"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"gamma": float("nan")}, "gamma=nan"),
        ({"gae_lambda": -0.1}, r"gae_lambda=-0.1: expected a number in \[0, 1\]"),
        ({"backend": "cuda"}, "backend='cuda' is unknown"),
    ],
)
def test_gae_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.gae(**{**gae_arguments(), **change})


ROWS: list[tuple[dict[str, Any], str]] = [
    ({"new_values": torch.zeros(5, 1)}, r"new_values has shape \[5, 1\]: expected \[5\]"),
    ({"old_log_probs": torch.zeros(4)}, "old_log_probs has shape"),
    ({"advantages": torch.zeros(5).double()}, "advantages has dtype torch.float64"),
    ({"returns": torch.zeros(5, device="meta")}, "returns is on meta"),
    ({"old_values": torch.zeros(5).half()}, "old_values has dtype torch.float16"),
    ({"valid": torch.ones(5)}, "valid has dtype torch.float32: expected torch.bool"),
    ({"clip_coef": -0.2}, "clip_coef=-0.2"),
    ({"clip_coef": float("nan")}, "clip_coef=nan"),
    ({"vf_coef": float("inf")}, "vf_coef=inf"),
    ({"ent_coef": float("nan")}, "ent_coef=nan"),
    ({"clip_vloss": -1.0}, "clip_vloss=-1.0"),
    ({"dual_clip": 1.0}, "dual_clip=1.0: expected None or a finite number > 1"),
    ({"normalizer": 0.0}, "normalizer=0.0"),
    ({"normalizer": torch.ones(1)}, r"normalizer has shape \[1\]"),
    ({"normalizer": torch.ones((), device="meta")}, "normalizer has shape .* on meta"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *ROWS,
        ({"logits": torch.zeros(5)}, r"logits has shape \[5\]: expected \[B, A\]"),
        ({"logits": torch.zeros(0, 4)}, "logits has shape"),
        ({"actions": torch.zeros(5)}, "actions has dtype torch.float32: .* torch.int64 or"),
        ({"actions": torch.zeros(5, 1).long()}, "actions has shape"),
        ({"nvec": (2, 3)}, r"nvec=\(2, 3\) sums to 5: .* logits.shape\[1\] = 4"),
        ({"nvec": (4, 0)}, "nvec="),
        ({"nvec": (2, 2)}, r"actions has shape \[5\]: expected \[5, 2\]"),
        ({"action_mask": torch.ones(5, 4)}, "action_mask has dtype torch.float32"),
        ({"action_mask": torch.ones(5, 3).bool()}, "action_mask has shape"),
    ],
)
def test_categorical_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.categorical_ppo_loss(**{**categorical_arguments(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *ROWS,
        ({"mean": torch.zeros(5)}, r"mean has shape \[5\]: expected \[B, D\]"),
        ({"log_std": torch.zeros(4)}, r"log_std has shape \[4\]: expected \[3\]"),
        ({"log_std": torch.zeros(1, 3)}, r"log_std has shape \[1, 3\]: expected \[5, 3\]"),
        ({"actions": torch.zeros(5, 3).long()}, "actions has dtype torch.int64"),
    ],
)
def test_gaussian_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.gaussian_ppo_loss(**{**gaussian_arguments(), **change})


def test_messages_are_one_line() -> None:
    with pytest.raises(ValueError, match="values") as caught:
        api.gae(**{**gae_arguments(), "values": torch.zeros(9)})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", torch.float32, "numba"),
        ("cpu", torch.float64, "torch"),
        ("cpu", torch.bfloat16, "numba"),
        ("cuda", torch.float32, "triton"),
        ("cuda:1", torch.float64, "torch"),
        ("mps", torch.float32, "torch"),
    ],
)
def test_auto_follows_device_and_dtype(device: str, dtype: torch.dtype, expected: str) -> None:
    assert api.resolve_backend("auto", device, dtype) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_torch_serves_other_dtypes(dtype: torch.dtype) -> None:
    arguments: dict[str, Any] = {
        n: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v
        for n, v in categorical_arguments().items()
    }

    loss, stats = api.categorical_ppo_loss(**arguments)

    assert loss.dtype == dtype
    assert all(stat.dtype == dtype for stat in stats.values())


@pytest.mark.parametrize("name", ["triton", "numba"])
def test_float64_is_refused_by_the_fused_backends(name: str) -> None:
    arguments = {**gae_arguments(), "rewards": torch.zeros(3, 2).double()}
    arguments["values"] = arguments["values"].double()

    with pytest.raises(
        api.BackendUnavailable, match=r"float32 and bfloat16, got .*pass backend='torch'"
    ):
        api.gae(**arguments, backend=name)


def test_numba_refuses_cuda_tensors() -> None:
    with pytest.raises(api.BackendUnavailable, match="got a cuda tensor: pass backend='triton'"):
        api.resolve_backend("numba", "cuda", torch.float32)


def test_triton_serves_cpu_tensors_only_when_interpreted() -> None:
    if backends.triton_is_interpreted():
        assert api.resolve_backend("triton", CPU, torch.float32) == "triton"
        return
    with pytest.raises(api.BackendUnavailable, match="TRITON_INTERPRET=1"):
        api.resolve_backend("triton", CPU, torch.float32)


@pytest.mark.parametrize("name", ["triton", "numba"])
def test_missing_package_is_named_and_nothing_falls_back(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(backends, "_missing", lambda package: f"{package} is not installed: remedy")
    device = "cuda" if name == "triton" else "cpu"
    # past the cache, which remembers that the package is there
    resolve: Callable[..., str] = backends._cached_resolve.__wrapped__

    for asked in (name, "auto"):
        with pytest.raises(api.BackendUnavailable, match=f"{name} is not installed: remedy"):
            resolve(asked, device, torch.float32)


def test_available_backends_tells_what_serves_here() -> None:
    found = api.available_backends()

    assert found.keys() == {"triton", "numba", "torch"}
    assert found["numba"] is None
    assert found["torch"] is None
    if backends.triton_is_interpreted() or torch.cuda.is_available():
        assert found["triton"] is None
    else:
        assert "no CUDA device" in str(found["triton"])


def test_api_works_without_triton_and_does_not_import_numba_early() -> None:
    program = """
import sys
sys.modules["triton"] = None  # as on macOS: importing it raises ImportError
import torch
from fastppo.kernels import api
assert "numba" not in sys.modules
ends = torch.zeros(1, 1, dtype=torch.bool)
api.gae(torch.ones(1, 1), torch.ones(2, 1), ends, ends, gamma=1.0, gae_lambda=1.0)
assert "numba" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_warmup_loads_the_backend_of_the_device() -> None:
    assert api.warmup() == "numba"
    assert api.warmup(backend="torch") == "torch"


def test_numba_never_compiles_again() -> None:
    """Whatever the shapes, layouts and coefficients: the signatures are fixed."""
    from numba.core.dispatcher import Dispatcher

    backends.load("numba", backends.OPERATIONS)
    kernels: dict[str, Any] = {
        name: kernel
        for module_name, module in sys.modules.items()
        if module_name.startswith("fastppo.kernels.") and ".numba_" in module_name
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and name.endswith("_kernel")
    }
    for clip_coef in (0.2, 0.1, 1, 0.0):
        for batch_size in (1, 5):
            discrete, continuous = categorical_arguments(), gaussian_arguments()
            for arguments in (discrete, continuous):
                for name, value in arguments.items():
                    if isinstance(value, Tensor) and len(value) == 5:
                        arguments[name] = value[:batch_size]
                arguments |= {"clip_coef": clip_coef, "backend": "numba"}
            api.categorical_ppo_loss(**discrete, norm_adv=False)
            api.categorical_ppo_loss(**discrete, valid=torch.ones(batch_size, dtype=torch.bool))
            api.gaussian_ppo_loss(**continuous, normalizer=3, dual_clip=2)
    api.gae(**{**gae_arguments(), "gamma": 1}, backend="numba")

    assert {"gae_kernel", "vocab_kernel", "gaussian_kernel"} <= kernels.keys()
    assert {len(kernel.signatures) for kernel in kernels.values()} == {1}
    assert not any(kernel._can_compile for kernel in kernels.values())
