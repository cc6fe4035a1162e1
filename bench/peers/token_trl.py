"""TRL's PPO on tokens: `python -m fastppo.bench.peers.token_trl` in its own venv.

Its formulas stand in the middle of `PPOTrainer.train` and are no functions. So its statements are
taken out of its source, by the names that they assign, and run as they are.
"""

import ast
import inspect
import textwrap
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.trainer import ppo_trainer
from trl.trainer.utils import selective_log_softmax

from fastppo.bench.peers.token_child import serve
from fastppo.bench.peers.token_library import CLIP, Library


def _statements(first: str, last: str) -> Any:
    """Compiled: from the first that assigns one name to the first behind it that assigns another.

    Raises:
        LookupError: PPOTrainer.train has no such statements.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(ppo_trainer.PPOTrainer.train)))
    for block in (getattr(node, "body", None) for node in ast.walk(tree)):
        if not isinstance(block, list):
            continue
        named = [_assigned(statement) for statement in block]
        if first in named and last in named[named.index(first) :]:
            begin = named.index(first)
            end = begin + named[begin:].index(last)
            module = ast.Module(block[begin : end + 1], [])
            return compile(ast.fix_missing_locations(module), "PPOTrainer.train", "exec")
    raise LookupError(f"PPOTrainer.train assigns no {first} and then {last}")


def _assigned(statement: ast.stmt) -> str | None:
    """What a statement assigns: a name, or that of what it indexes."""
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    target = targets[0]
    if isinstance(target, ast.Subscript):
        return f"{ast.unparse(target.value)}[]"
    return ast.unparse(target) if target is not None else None


def _run(code: Any, **names: Any) -> dict[str, Any]:
    scope: dict[str, Any] = vars(ppo_trainer) | names
    exec(code, scope)
    return scope


REWARDS = _statements("logr", "rewards[]")
ADVANTAGES = _statements("lastgaelam", "returns")
LOSS = _statements("logprobs_diff", "pg_loss")


def rewards(scores: Tensor, valid: Tensor) -> Tensor:
    """Of no divergence."""
    lengths = valid.sum(1) - 1  # the index of the last token, as it counts
    nothing = torch.zeros(valid.shape)
    return _run(  # type: ignore[no-any-return]
        REWARDS,
        ref_logprobs=nothing,
        logprobs=nothing,
        args=SimpleNamespace(kl_estimator="k1", kl_coef=0.0),
        sequence_lengths=lengths,
        sequence_lengths_p1=lengths + 1,
        scores=scores,
    )["rewards"]


def advantages(rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    """Before they are whitened."""
    found = _run(
        ADVANTAGES,
        responses=rewards,
        rewards=rewards,
        values=values,
        args=SimpleNamespace(gamma=gamma, lam=lam),
    )
    return found["returns"] - values  # type: ignore[no-any-return]


def loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    *,
    total: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """As `token_library.Loss`; padding is filled as the trainer fills it."""
    invalid = ppo_trainer.INVALID_LOGPROB
    found = _run(
        LOSS,
        new_logprobs=log_probs.masked_fill(~valid, invalid),
        mb_logprobs=old_log_probs.masked_fill(~valid, invalid),
        mb_advantage=advantages.masked_fill(~valid, 0.0),
        padding_mask=~valid,
        micro_batch_inds=slice(None),
        args=SimpleNamespace(cliprange=CLIP, vf_coef=0.0),
        pg_loss=None,
        vf_loss=0.0,
    )
    return found["pg_loss"]  # type: ignore[no-any-return]


LIBRARY = Library(
    name="trl",
    version=version("trl"),
    called="the statements of PPOTrainer.train; selective_log_softmax",
    log_probs=selective_log_softmax,
    rewards=rewards,
    advantages=advantages,
    loss=loss,
)

if __name__ == "__main__":
    serve(LIBRARY)
