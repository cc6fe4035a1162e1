"""The losses as operations of torch: autograd, torch.library, torch.compile, and threads."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastppo.kernels import api, backends
from fastppo.kernels.loss import computed as losses
from fastppo.kernels.loss.terms import Rows, Terms

TERMS: dict[str, Any] = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01, "clip_vloss": 0.2}


def draw(batch_size: int, width: int, *, discrete: bool, seed: int = 0) -> list[Tensor]:
    """Arguments of a loss up to old_values; the policy's own require gradients."""
    g = torch.Generator().manual_seed(seed)
    policy = [torch.randn(batch_size, width, generator=g)]
    if not discrete:
        policy.append(torch.full((width,), -0.5))
    policy.append(torch.randn(batch_size, generator=g))
    shape = (batch_size,) if discrete else (batch_size, width)
    actions = torch.randint(0, width, shape, generator=g)
    rows = [torch.randn(batch_size, generator=g) for _ in range(4)]
    rows[0] = rows[0] * 0.1 - (1.5 if discrete else float(width))
    leaves = [tensor.requires_grad_() for tensor in policy]
    return [*leaves, actions if discrete else actions.float(), *rows]


def loss_function(discrete: bool) -> Callable[..., Any]:
    return api.categorical_ppo_loss if discrete else api.gaussian_ppo_loss


def evaluate(arguments: list[Tensor], *, discrete: bool, **options: Any) -> list[Tensor]:
    """Loss, statistics, gradients."""
    function = loss_function(discrete)
    loss, stats = function(*arguments, **TERMS, **options)
    grads = torch.autograd.grad(loss, arguments[: 2 if discrete else 3])
    return [loss.detach(), *stats.values(), *grads]


both = pytest.mark.parametrize("discrete", [True, False], ids=["categorical", "gaussian"])


@both
@pytest.mark.parametrize("width", [3, 700])
def test_the_registered_operation_keeps_its_contract(
    backend: str, discrete: bool, width: int
) -> None:
    if backend == "torch":
        pytest.skip("torch.compile traces through the reference: there is no operation")
    arguments = draw(6, width, discrete=discrete)
    count = 2 if discrete else 3
    policy, actions, old = arguments[:count], arguments[count], arguments[count + 1 :]
    rows = Rows(old[0], old[1], old[2], old[3], torch.tensor([True] * 5 + [False]))
    terms = Terms(0.2, 0.2, 0.5, 0.01, None, 3.0, True, torch.tensor(5.0))
    between = (None, None) if discrete else ()
    name = "categorical_ppo_loss" if discrete else "gaussian_ppo_loss"
    operation = getattr(torch.ops.fastppo, name).default

    torch.library.opcheck(
        operation, (backend, *policy, actions, *between, *losses.flat(rows, terms))
    )


@both
def test_compiles_into_one_graph_and_equals_eager(backend: str, discrete: bool) -> None:
    arguments = draw(40, 3, discrete=discrete)
    function = loss_function(discrete)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        loss, stats = function(*inputs, **TERMS, backend=backend)
        return 2.0 * loss, *stats.values()

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    parameters = arguments[: 2 if discrete else 3]
    results = []
    for call in (run, compiled):
        loss, *stats = call(*arguments)
        results.append([loss.detach(), *stats, *torch.autograd.grad(loss, parameters)])

    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-6, atol=1e-7)


@both
def test_backward_scales_and_may_run_twice(backend: str, discrete: bool) -> None:
    arguments = draw(40, 3, discrete=discrete)
    parameters = arguments[: 2 if discrete else 3]
    function = loss_function(discrete)
    loss, _ = function(*arguments, **TERMS, backend=backend)

    once = torch.autograd.grad(loss, parameters, retain_graph=True)
    (-3.0 * loss).backward(retain_graph=True)
    loss.backward()

    for parameter, grad in zip(parameters, once, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, -2.0 * grad, rtol=1e-5, atol=1e-7)


def test_second_derivatives_are_refused_by_the_fused_losses(backend: str) -> None:
    arguments = draw(8, 3, discrete=True)
    loss, _ = api.categorical_ppo_loss(*arguments, **TERMS, backend=backend)

    if backend == "torch":
        (grad,) = torch.autograd.grad(loss, arguments[:1], create_graph=True)
        assert grad.requires_grad
        return
    with pytest.raises(RuntimeError, match=r"create_graph=True: .* pass backend='torch'"):
        torch.autograd.grad(loss, arguments[:1], create_graph=True)


def test_overwritten_logits_scale_once_and_no_layer_may_need_them(backend: str) -> None:
    if backend == "torch":
        pytest.skip("refuses to overwrite")
    arguments = draw(8, 3, discrete=True)
    expected = evaluate(arguments, discrete=True, backend=backend)[-2]
    weights = arguments[0].detach().clone().requires_grad_()

    loss, _ = api.categorical_ppo_loss(
        1.0 * weights, *arguments[1:], **TERMS, overwrite_logits=True, backend=backend
    )
    (2.0 * loss).backward(retain_graph=True)
    torch.testing.assert_close(weights.grad, 2.0 * expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

    # tanh keeps its output, which the gradient has overwritten
    loss, _ = api.categorical_ppo_loss(
        weights.tanh(), *arguments[1:], **TERMS, overwrite_logits=True, backend=backend
    )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@both
def test_given_advantage_stats_replace_the_loss_own(backend: str, discrete: bool) -> None:
    arguments = draw(40, 3, discrete=discrete)
    valid = torch.arange(40) % 3 > 0
    advantages = arguments[4 if discrete else 5]
    stats = api.advantage_stats(advantages, valid, None, backend=backend)[0]

    own = evaluate(arguments, discrete=discrete, valid=valid, backend=backend)
    given = evaluate(
        arguments, discrete=discrete, valid=valid, advantage_stats=stats, backend=backend
    )

    for a, b in zip(given, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_numba_recompiles_when_a_helper_in_another_file_changes(tmp_path: Path) -> None:
    """numba's own cache watches only the file of the kernel itself."""
    package = tmp_path / "fastppo" / "kernels" / "tools"
    package.mkdir(parents=True)
    source = Path(backends.__file__).parent
    for name in ("numba_memory.py", "numba_cache.py"):
        shutil.copy(source / "tools" / name, package)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "numba_helper.py").write_text(
        "from numba import njit\n@njit(inline='always')\ndef double(x):\n    return 2 * x\n"
    )
    (package / "numba_user.py").write_text(
        "from fastppo.kernels.tools.numba_helper import double\n"
        "from fastppo.kernels.tools.numba_memory import kernel\n"
        "@kernel('int64(int64)')\ndef run(x):\n    return double(x)\n"
        "print(run(7), sum(run.stats.cache_hits.values()))\n"
    )

    def run() -> str:
        command = [sys.executable, "-c", "import fastppo.kernels.tools.numba_user"]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert run() == "14 0"
    assert run() == "14 1"
    helper = package / "numba_helper.py"
    helper.write_text(helper.read_text().replace("2 * x", "3 * x"))
    assert run() == "21 0"
