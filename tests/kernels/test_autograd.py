"""What autograd may ask of the operations; the rest is refused, so that no derivative is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastppo.kernels import api
from fastppo.kernels.loss import computed as losses
from fastppo.kernels.loss.terms import Rows, Terms

Loss = Callable[[Tensor], Tensor]
ROWS, WIDTH = 6, 3
COEFFICIENTS: dict[str, Any] = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.01}
NO_FLAGS = torch.zeros(ROWS, WIDTH, dtype=torch.bool)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_loss(kind: str, backend: str, *, registered: bool) -> Loss:
    """A loss as a function of logits or mean [ROWS, WIDTH], public or as torch.ops has it."""
    rows = Rows._make([*random(4, ROWS, seed=1), None, None])
    values = random(ROWS, seed=2)
    discrete = kind == "categorical"
    actions = torch.arange(ROWS) % WIDTH if discrete else random(ROWS, WIDTH, seed=3)
    between = () if discrete else (torch.zeros(WIDTH),)
    flat = losses.flat(rows, Terms(0.2, 0.2, 0.5, 0.01, None, None, True, None))
    behind = (None, None, *flat) if discrete else flat

    def public(policy: Tensor) -> Tensor:
        function: Any = api.categorical_ppo_loss if discrete else api.gaussian_ppo_loss
        loss: Tensor = function(
            policy, *between, values, actions, *rows[:4], **COEFFICIENTS, backend=backend
        )[0]
        return loss

    def direct(policy: Tensor) -> Tensor:
        operation = getattr(torch.ops.fastppo, f"{kind}_ppo_loss")
        loss: Tensor = operation(backend, policy, *between, values, actions, *behind)[0]
        return loss

    return direct if registered else public


kinds = pytest.mark.parametrize("kind", ["categorical", "gaussian"])
both_ways = pytest.mark.parametrize("registered", [False, True], ids=["public", "torch.ops"])


@pytest.fixture
def fused(backend: str) -> str:
    if backend == "torch":
        pytest.skip("the reference is differentiable as often as one likes")
    return backend


@kinds
@both_ways
def test_fused_losses_have_first_derivatives_and_refuse_second_ones(
    fused: str, kind: str, registered: bool
) -> None:
    loss_of = make_loss(kind, fused, registered=registered)
    policy = random(ROWS, WIDTH).requires_grad_()

    (first,) = torch.autograd.grad(3.0 * loss_of(policy), policy)

    exact = policy.detach().requires_grad_()
    expected = torch.autograd.grad(make_loss(kind, "torch", registered=False)(exact), exact)[0]
    torch.testing.assert_close(first, 3.0 * expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"create_graph=True: .* pass backend='torch'"):
        torch.autograd.grad(loss_of(policy), policy, create_graph=True)
    with pytest.raises(RuntimeError, match=r"create_graph=True: .* pass backend='torch'"):
        torch.autograd.functional.hessian(loss_of, policy.detach())


@kinds
@both_ways
# torch's own forward mode scripts its decompositions
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_fused_losses_refuse_forward_mode(fused: str, kind: str, registered: bool) -> None:
    loss_of = make_loss(kind, fused, registered=registered)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(random(ROWS, WIDTH), torch.ones(ROWS, WIDTH))
        with pytest.raises(RuntimeError, match=r"forward-mode AD: .* pass backend='torch'"):
            loss_of(dual)


@kinds
@both_ways
@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian"])
def test_transforms_of_fused_losses_name_the_remedy(
    fused: str, kind: str, registered: bool, transform: str
) -> None:
    """And leave nothing behind: a tensor made and cached inside of one would be useless after."""
    loss_of = make_loss(kind, fused, registered=registered)
    policy = random(ROWS, WIDTH)

    with pytest.raises(api.BackendUnavailable, match="pass backend='torch'") as caught:
        getattr(torch.func, transform)(loss_of)(policy)

    assert "\n" not in str(caught.value)
    assert loss_of(policy).isfinite()


@kinds
def test_the_remedy_works(kind: str) -> None:
    loss_of = make_loss(kind, "torch", registered=False)
    policy = random(ROWS, WIDTH).requires_grad_()
    losses_of_three = torch.func.vmap(loss_of)(policy.detach().expand(3, ROWS, WIDTH))

    loss = loss_of(policy)

    torch.testing.assert_close(losses_of_three, loss.detach().expand(3))
    gradient = torch.autograd.grad(loss, policy)[0]
    torch.testing.assert_close(torch.func.grad(loss_of)(policy.detach()), gradient)
    torch.testing.assert_close(
        torch.func.hessian(loss_of)(policy.detach()),
        torch.autograd.functional.hessian(loss_of, policy.detach()),
    )


def test_a_registered_loss_sends_the_torch_backend_to_the_public_one() -> None:
    loss_of = make_loss("categorical", "torch", registered=True)
    with pytest.raises(api.BackendUnavailable, match=r"call fastppo\.kernels\.api"):
        loss_of(random(ROWS, WIDTH))


def registered_calls(backend: str) -> dict[str, Callable[[Tensor], tuple[Tensor, ...]]]:
    """What each operation that has no derivatives makes of x [ROWS, WIDTH]."""
    ops: Any = torch.ops.fastppo
    values, counter = torch.zeros(ROWS + 1, WIDTH), (1, None, 0, 0, None)

    def act(x: Tensor, *, discrete: bool) -> tuple[Tensor, ...]:
        drawn = torch.zeros(ROWS, dtype=torch.int64) if discrete else torch.zeros(ROWS, WIDTH)
        out = (drawn, torch.zeros(ROWS), torch.zeros(ROWS))
        if discrete:
            ops.act_categorical(backend, x, None, [WIDTH], *counter, *out)
        else:
            ops.act_gaussian(backend, x, torch.zeros(WIDTH), *counter, *out)
        return out

    def normalize(x: Tensor) -> tuple[Tensor, ...]:
        out = torch.zeros(ROWS, WIDTH)
        ops.normalize(out, x, torch.zeros(WIDTH), torch.ones(WIDTH), 10.0, 1e-8, backend)
        return (out,)

    def update_moments(x: Tensor) -> tuple[Tensor, ...]:
        moments = tuple(torch.zeros(shape, dtype=torch.float64) for shape in (WIDTH, WIDTH, ()))
        ops.update_moments_(*moments, x, None, None, 10.0, 1e-8, backend)
        return moments

    def gather_out(x: Tensor) -> tuple[Tensor, ...]:
        out = [torch.zeros(2, WIDTH)]
        ops.gather_rows_out([x], torch.tensor([4, 1]), out, backend)
        return tuple(out)

    return {
        "gae": lambda x: ops.gae(
            x, values, NO_FLAGS, NO_FLAGS, None, 0.9, 0.9, "TN", backend
        ),
        "advantage_stats": lambda x: (ops.advantage_stats(x, None, None, backend),),
        "gather_rows": lambda x: tuple(ops.gather_rows([x], torch.tensor([4, 1]), backend)),
        "gather_rows_out": gather_out,
        "act_categorical": lambda x: act(x, discrete=True),
        "act_gaussian": lambda x: act(x, discrete=False),
        "normalize": normalize,
        "update_moments_": update_moments,
    }  # fmt: skip


WITHOUT_DERIVATIVES = list(registered_calls("torch"))


@pytest.mark.parametrize("name", WITHOUT_DERIVATIVES)
def test_other_operations_have_no_graph_whichever_backend_runs(backend: str, name: str) -> None:
    """As the public functions say of themselves; a backend's own torch code must not show."""
    results = registered_calls(backend)[name](random(ROWS, WIDTH).requires_grad_())

    assert results
    assert not any(result.requires_grad for result in results)
    assert any(result.any() for result in results)


@pytest.mark.parametrize("name", WITHOUT_DERIVATIVES)
def test_transforms_of_other_operations_name_the_remedy(backend: str, name: str) -> None:
    call = registered_calls(backend)[name]

    with pytest.raises(api.BackendUnavailable, match="pass backend='torch'"):
        torch.func.grad(lambda x: sum(result.sum() for result in call(x)))(random(ROWS, WIDTH))


def test_an_operation_that_writes_tells_autograd(backend: str) -> None:
    """Or a graph that kept the old parameter would yield gradients at the new one."""
    parameter = torch.ones(4)
    leaf = torch.ones(4, requires_grad=True)
    product = (leaf * parameter).sum()
    state = [torch.zeros(4) for _ in range(2)]
    torch.ops.fastppo.clip_adam_(
        parameter, torch.ones(4), *state, torch.zeros(()), None, 0.1, 0.9, 0.999, 1e-8, None, None,
        False, backend,
    )  # fmt: skip

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
