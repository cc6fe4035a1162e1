"""Batches of tokens for the tests of their losses, clear of every kink, and a float64 oracle."""

import math
from typing import Any

import torch
from torch import Tensor

from fastppo.kernels import api

Result = tuple[Tensor, api.Stats, Tensor, Tensor | None]
COEFFICIENTS: dict[str, Any] = {
    "clip_coef": (0.2, 0.3),
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "clip_vloss": 0.2,
    "dual_clip": 3.0,
    "norm_adv": False,
}
OF_TOKENS = (
    "new_values", "actions", "old_log_probs", "advantages", "returns", "old_values", "valid",
    "ref_log_probs", "sequence_id",
)  # fmt: skip
"""Arguments [B, T], if they are there."""


def draw(
    batch: int,
    length: int,
    width: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    holes: bool = True,
    temperature: float = 1.0,
    **options: Any,
) -> dict[str, Any]:
    """Arguments of `categorical_ppo_loss`, [B, T, V]; what is not valid is NaN or out of range."""
    g = torch.Generator().manual_seed(seed)
    shape = (batch, length)

    def one_of(*numbers: float) -> Tensor:
        return torch.tensor(numbers)[torch.randint(len(numbers), shape, generator=g)]

    logits = (3.0 * torch.randn(*shape, width, generator=g)).to(dtype)
    actions = torch.randint(width, shape, generator=g)
    log_p = (logits.double() / temperature).log_softmax(-1)
    log_probs = log_p.gather(-1, actions[..., None])[..., 0]
    old_values = torch.randn(shape, generator=g)
    arguments: dict[str, Any] = {
        "logits": logits,
        "new_values": old_values + one_of(-0.5, -0.1, 0.1, 0.5),
        "actions": actions,
        "old_log_probs": (log_probs - one_of(0.5, 0.9, 1.1, 1.7).double().log()).float(),
        "advantages": torch.randn(shape, generator=g),
        "returns": old_values + one_of(-1.0, 1.0),
        "old_values": old_values,
        "ref_log_probs": (log_probs + 0.3 * torch.randn(shape, generator=g)).float(),
        "kl_coef": 0.1,
        "temperature": temperature,
        **COEFFICIENTS,
        **options,
    }
    if holes:
        valid = torch.rand(shape, generator=g) < 0.7
        arguments["valid"] = valid
        for value in arguments.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value[~valid] = math.nan
        arguments["actions"][~valid] = -100
    return arguments


def run(arguments: dict[str, Any], backend: str) -> Result:
    """Loss, statistics, and the gradients of logits and values."""
    arguments = dict(arguments)
    logits = arguments["logits"] = arguments["logits"].detach().requires_grad_()
    values = arguments["new_values"]
    if values is not None:
        values = arguments["new_values"] = values.detach().requires_grad_()
    loss, stats = api.categorical_ppo_loss(**arguments, backend=backend)
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), stats, logits.grad, None if values is None else values.grad


def double(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in arguments.items()
    }


def oracle(arguments: dict[str, Any]) -> Result:
    return run(double(arguments), "torch")


def assert_close(actual: Result, expected: Result, rtol: float = 3e-5) -> None:
    """Up to float32; a gradient of bfloat16 to its own precision."""
    loose: dict[str, Any] = {"rtol": rtol, "atol": 1e-5}
    torch.testing.assert_close(actual[0].double(), expected[0], **loose)
    assert actual[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(actual[1][name].double(), value, **loose)
    rounded = actual[2].dtype == torch.bfloat16
    tight: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-6} if rounded else loose
    torch.testing.assert_close(actual[2].double(), expected[2], **tight)
    assert (actual[3] is None) == (expected[3] is None)
    if actual[3] is not None and expected[3] is not None:
        torch.testing.assert_close(actual[3].double(), expected[3], **loose)


def cut(arguments: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The sequences `rows` of a batch."""
    return {
        name: x[rows] if isinstance(x, Tensor) and name in ("logits", *OF_TOKENS) else x
        for name, x in arguments.items()
    }


REDUCTIONS = ("token", "sequence", "sequence_sum", "constant")


def whole_number(arguments: dict[str, Any], reduction: str) -> float:
    """What the whole batch divides by."""
    lengths = arguments["valid"].sum(1)
    sequences = int((lengths > 0).sum())
    by_name = {"token": int(lengths.sum()), "constant": sequences * arguments["valid"].shape[1]}
    return float(by_name.get(reduction, sequences))


def gradient_of_rank(rank: int, folder: str) -> None:
    """One of two processes: half of the batch's sequences, shared parameters, one all-reduce."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    grads = {}
    for reduction in REDUCTIONS:
        arguments = draw(6, 4, 25, reduction=reduction)
        mine = cut(arguments, slice(0, 2) if rank == 0 else slice(2, 6))
        number = torch.tensor(whole_number(mine, reduction))
        torch.distributed.all_reduce(number)
        scale = torch.ones(25, requires_grad=True)
        mine |= {"logits": mine["logits"].nan_to_num() * scale, "normalizer": number}
        loss, _ = api.categorical_ppo_loss(**mine, backend="numba")
        loss.backward()
        assert scale.grad is not None
        torch.distributed.all_reduce(scale.grad)
        grads[reduction] = scale.grad
    torch.save(grads, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
