"""OpenRLHF's functions on tokens: `python -m fastppo.bench.peers.token_openrlhf` in its own venv.

Its package imports DeepSpeed, flash-attn and ray, which need a GPU or a day; its functions need
none of them. So these modules stand empty while its files are read, and the files are its own.
"""

import re
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import requires, version
from types import ModuleType
from typing import Any

from torch import Tensor

from fastppo.bench.peers.token_child import serve
from fastppo.bench.peers.token_library import CLIP, Library


class _Nothing:
    """May be called, decorated with, subscripted and inherited from."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing

    def __class_getitem__(cls, _: Any) -> Any:
        return cls


class _Empty(ModuleType):
    """A module that has every name."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Nothing,), {})


class _Finder(MetaPathFinder, Loader):
    """Comes last: finds an empty module for each of its requirements that is not installed."""

    names = frozenset(
        re.split(r"[^\w-]", need)[0].replace("-", "_") for need in requires("openrlhf") or ()
    )

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        known = name.partition(".")[0] in self.names
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


_finder = _Finder()
sys.meta_path.append(_finder)

from openrlhf.models import loss as losses  # noqa: E402
from openrlhf.models import utils  # noqa: E402
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker  # noqa: E402

sys.meta_path.remove(_finder)  # from here on what is missing is missing


def loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    *,
    total: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """As `token_library.Loss`."""
    policy_loss = losses.PolicyLoss(CLIP, CLIP, dual_clip=dual_clip)
    found = policy_loss(log_probs, old_log_probs, advantages, valid.float(), batch_num_tokens=total)
    return found[0]  # type: ignore[no-any-return]


def rewards(scores: Tensor, valid: Tensor) -> Tensor:
    """Of no divergence."""
    found = utils.compute_reward(scores, 0.0, 0.0 * valid.float(), action_mask=valid.float())
    return found  # type: ignore[no-any-return]


def advantages(rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    """As its experience maker computes them; the method uses nothing of its object."""
    of: Any = RemoteExperienceMaker.get_advantages_and_returns
    found, _ = of(None, values, rewards, valid.float(), gamma, lam)
    return found  # type: ignore[no-any-return]


def _kl(name: str, unbiased: bool) -> Any:
    def estimate(log_probs: Tensor, reference: Tensor, old: Tensor) -> Tensor:
        found = utils.compute_approx_kl(log_probs, reference, old, name, unbiased)
        return found  # type: ignore[no-any-return]

    return estimate


LIBRARY = Library(
    name="openrlhf",
    version=version("openrlhf"),
    called="PolicyLoss, compute_reward, compute_approx_kl, log_probs_from_logits, "
    "RemoteExperienceMaker.get_advantages_and_returns",
    log_probs=utils.log_probs_from_logits,
    rewards=rewards,
    advantages=advantages,
    loss=loss,
    takes_total=True,
    takes_dual_clip=True,
    divergences={
        **{name: _kl(name, False) for name in ("k1", "k2", "k3")},
        "k1 corrected": _kl("k1", True),
        "k3 corrected": _kl("k3", True),
    },
)

if __name__ == "__main__":
    serve(LIBRARY)
