"""What acting refuses, and how torch.library and torch.compile see it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api

LOGITS = torch.zeros(4, 5)
MEAN = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(4)}, r"logits has shape \[4\]: expected \[B, A\]"),
        ({"logits": torch.zeros(0, 5)}, r"logits has shape \[0, 5\]: .* no size 0"),
        ({"logits": torch.zeros(4, 5).long()}, "logits has dtype torch.int64"),
        ({"nvec": (2, 2)}, r"nvec=\(2, 2\) sums to 4: .* logits.shape\[1\] = 5"),
        ({"nvec": ()}, r"nvec=\(\) sums to 0: expected sizes >= 1"),
        ({"nvec": (5, 0)}, r"nvec=\(5, 0\) sums to 5: expected sizes >= 1"),
        ({"action_mask": torch.ones(4, 5)}, "action_mask has dtype torch.float32"),
        ({"action_mask": torch.ones(4).bool()}, r"action_mask has shape \[4\]"),
        ({"key": -1}, r"key=-1: expected 64 bits, 0 <= key < 2\*\*64"),
        ({"key": 2**64}, "key=18446744073709551616"),
        ({"step": -1}, r"step=-1: expected 0 <= step < 2\*\*63"),
        ({"step": 2**63}, "step=9223372036854775808"),
        ({"step": torch.zeros(1).long()}, r"step has shape \[1\]: expected \[\]"),
        ({"step": torch.zeros(())}, "step has dtype torch.float32: expected torch.int64"),
        ({"step": torch.zeros((), device="meta").long()}, "step is on meta"),
        ({"first_env": -1}, "first_env=-1: expected >= 0"),
        ({"first_env": 2**32 - 3}, r"first_env=4294967293: .* 4 ids below 2\*\*32"),
        ({"env_ids": torch.arange(3)}, r"env_ids has shape \[3\]: expected \[4\]"),
        ({"env_ids": torch.arange(4).int()}, "env_ids has dtype torch.int32"),
        ({"env_ids": torch.arange(4), "first_env": 2}, "first_env=2 and env_ids"),
        ({"out": (torch.zeros(4).long(),)}, "out has 1 tensors: expected"),
        ({"out": (torch.zeros(4), torch.zeros(4))}, r"out\[0\] has dtype torch.float32"),
        ({"out": (torch.zeros(4, 1).long(), torch.zeros(4))}, r"out\[0\] has shape \[4, 1\]"),
        ({"out": (torch.zeros(4).long(), torch.zeros(4).double())}, r"out\[1\] has dtype"),
        (
            {"out": (torch.zeros(4).long(), torch.zeros(4), torch.zeros(5))},
            r"out\[2\] has shape \[5\]: expected \[4\]",
        ),
        (
            {"out": (torch.zeros(4).long(), torch.zeros(4, 2)[:, 0])},
            r"out\[1\] has strides \(2,\): expected a contiguous row of a buffer",
        ),
        ({"backend": "cuda"}, "backend='cuda' is unknown"),
    ],
)
def test_act_categorical_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.act_categorical(**{"logits": LOGITS, "step": 0, "key": 1, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(4)}, r"mean has shape \[4\]: expected \[B, D\]"),
        ({"log_std": torch.zeros(4)}, r"log_std has shape \[4\]: expected \[3\]"),
        ({"log_std": torch.zeros(3, 3)}, r"log_std has shape \[3, 3\]: expected \[4, 3\]"),
        ({"log_std": torch.zeros(3).double()}, "log_std has dtype torch.float64"),
        ({"log_std": torch.zeros(3, device="meta")}, "log_std is on meta"),
        ({"key": -1}, "key=-1"),
        ({"step": -1}, "step=-1"),
        ({"first_env": 2**32}, "first_env=4294967296"),
        ({"out": (torch.zeros(4, 3).double(), torch.zeros(4))}, r"out\[0\] has dtype"),
    ],
)
def test_act_gaussian_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    arguments = {"mean": MEAN, "log_std": torch.zeros(3), "step": 0, "key": 1, **change}
    with pytest.raises(ValueError, match=message):
        api.act_gaussian(**arguments)


def test_a_backend_that_cannot_serve_says_so() -> None:
    with pytest.raises(api.BackendUnavailable, match="serves float32 and bfloat16"):
        api.act_categorical(LOGITS.double(), 0, key=1, backend="numba")

    assert api.act_categorical(LOGITS.double(), 0, key=1)[1].dtype == torch.float64
    assert api.act_categorical(LOGITS.half(), 0, key=1)[1].dtype == torch.float32


@pytest.mark.parametrize("on_device", [True, False])
def test_operations_keep_the_contract_of_torch_library(backend: str, on_device: bool) -> None:
    step = torch.tensor(3) if on_device else None
    counter: tuple[Any, ...] = (-7, step, 0 if on_device else 3, 0, None)
    actions = torch.zeros(4, 2, dtype=torch.long)
    floats = torch.zeros(2, 4)

    torch.library.opcheck(
        torch.ops.fastppo.act_categorical.default,
        (backend, LOGITS, LOGITS == 0, (2, 3), *counter, actions, floats[0], floats[1]),
    )
    torch.library.opcheck(
        torch.ops.fastppo.act_gaussian.default,
        (backend, MEAN, MEAN[0], *counter, torch.zeros(4, 3), floats[0], None),
    )


def test_compiles_into_one_graph(backend: str) -> None:
    """A counting loop compiles once for a step tensor, and the buffer's row is written."""
    buffer = torch.zeros(3, 4, dtype=torch.long)
    log_probs = torch.zeros(3, 4)
    logits = torch.linspace(-1.0, 1.0, 20).view(4, 5)

    def act(logits: Tensor, step: Tensor, actions: Tensor, log_probs: Tensor) -> Tensor:
        out = (actions, log_probs)
        api.act_categorical(logits * 2.0, step, key=2**64 - 5, out=out, backend=backend)
        drawn = api.act_gaussian(logits, logits[0], step, key=3, backend=backend)
        return drawn[0] + drawn[1][:, None] + drawn[2][:, None]

    torch.compiler.reset()
    compiled = torch.compile(act, fullgraph=True, backend="aot_eager")
    for t in range(3):
        result = compiled(logits, torch.tensor(t), buffer[t], log_probs[t])

        expected_row = torch.zeros(4, dtype=torch.long), torch.zeros(4)
        torch.testing.assert_close(result, act(logits, torch.tensor(t), *expected_row))
        assert torch.equal(buffer[t], expected_row[0])
        assert torch.equal(log_probs[t], expected_row[1])


@pytest.mark.parametrize("discrete", [True, False])
def test_autograd_notices_a_row_that_is_written_again(backend: str, discrete: bool) -> None:
    actions = torch.zeros(4).long() if discrete else torch.zeros(4, 3)
    out = (actions, torch.zeros(4), torch.zeros(4))

    def write(step: int) -> None:
        options: dict[str, Any] = {"key": 1, "out": out, "backend": backend}
        if discrete:
            api.act_categorical(LOGITS, step, **options)
        else:
            api.act_gaussian(MEAN, torch.zeros(3), step, **options)

    write(0)
    versions = [tensor._version for tensor in out]
    weight = torch.ones(4, requires_grad=True)
    product = (weight * out[1]).sum()  # keeps out[1]
    write(1)

    assert all(t._version > before for t, before in zip(out, versions, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
