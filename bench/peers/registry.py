"""The peers that can be installed, where their venvs live, and how each is started.

A venv is whole once it holds its stamp, which `fastppo.bench.peers.install` writes last.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastppo
from fastppo import files
from fastppo.errors import UserError

STAMP = "fastppo-peer.json"
# One CPU and CUDA build alike: a looser torch would move under a stored result. tyro reads our
# Config; the environments are the same in every venv.
TORCH = ("torch==2.13.0", "numpy==2.4.6")
SHARED = (*TORCH, "envpool==1.2.5", "gymnasium==1.4.0", "tyro==1.0.17")


@dataclass(frozen=True, slots=True)
class Peer:
    """A PPO library, and the program of this package that trains with it."""

    name: str
    distribution: str
    """The library's own package, whose version is shown."""
    requirements: tuple[str, ...]
    """Pinned exactly."""
    note: str
    alone: str | None = None
    """Installed last, without its dependencies and on any Python: these ask for a GPU, or 2023."""
    of_tokens: bool = False
    """Whether it trains language models, for `bench tokens`; the others are for `bench train`."""
    missing: str | None = None
    """Why it cannot be installed."""

    @property
    def pins(self) -> list[str]:
        """Every requirement, as the stamp keeps them."""
        return [*self.requirements, *([self.alone] if self.alone else [])]

    @property
    def module(self) -> str:
        """Run as `python -m` by the python of the peer's venv."""
        return f"fastppo.bench.peers.{'token_' if self.of_tokens else ''}{self.name}"


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "sb3",
            "stable-baselines3",
            ("stable-baselines3==2.9.2", *SHARED),
            "Stable-Baselines3: PyTorch, rollout buffer in numpy",
        ),
        Peer(
            "sbx",
            "sbx-rl",
            ("sbx-rl==0.28.0", "stable-baselines3==2.9.2", "jax==0.10.2", "jaxlib==0.10.2",
             "flax==0.12.8", "optax==0.2.8", *SHARED),
            "Stable-Baselines3 in JAX: one jitted step per minibatch; CPU only here",
        ),
        Peer(
            "rl_games",
            "rl-games",
            ("rl-games==1.6.5", *SHARED),
            "rl_games: rollout in tensors on the device",
        ),
        Peer(
            "torchrl",
            "torchrl",
            ("torchrl==0.14.1", "tensordict==0.14.3", *SHARED),
            "TorchRL: collector, GAE, replay buffer and ClipPPOLoss",
        ),
        Peer(
            "tianshou",
            "tianshou",
            ("tianshou==2.0.1", *SHARED),
            "Tianshou: collector, vector replay buffer, on-policy trainer",
        ),
        Peer(
            "cleanrl",
            "cleanrl",
            SHARED,
            "CleanRL: its PPO scripts, unchanged",
            alone="cleanrl==1.2.0",
        ),
        Peer(
            "gymnax",
            "gymnax",
            ("gymnax==0.0.9", "jax==0.10.2", "jaxlib==0.10.2", "optax==0.2.8", "six==1.17.0",
             *SHARED),
            "PPO and environment in one JAX program, as PureJaxRL: other environments",
        ),
        Peer(
            "trl",
            "trl",
            ("trl==0.24.0", "transformers==4.57.6", *TORCH),
            "TRL: the last one that has PPO; its formulas for tokens",
            of_tokens=True,
        ),
        Peer(
            "verl",
            "verl",
            ("verl==0.9.1", *TORCH),
            "verl: its formulas for tokens",
            of_tokens=True,
        ),
        Peer(
            "openrlhf",
            "openrlhf",
            ("packaging==26.3", *TORCH),
            "OpenRLHF: its formulas for tokens",
            alone="openrlhf==0.11.2",
            of_tokens=True,
        ),
        Peer(
            "liger",
            "liger-kernel",
            ("triton==3.7.1", *TORCH),
            "Liger-Kernel: its losses of tokens on a CPU",
            alone="liger-kernel==0.8.5",
            of_tokens=True,
        ),
        Peer(
            "nemo_rl",
            "nemo-rl",
            (),
            "NeMo-RL: its formulas for tokens",
            of_tokens=True,
            missing="the package index has an empty placeholder of it alone (0.0.0)",
        ),
    )
}  # fmt: skip


def names(*, of_tokens: bool = False) -> list[str]:
    """Every peer of `bench train`, or of `bench tokens`, installed or not."""
    return [name for name, peer in PEERS.items() if peer.of_tokens is of_tokens]


def find(name: str) -> Peer:
    """The peer of this name.

    Raises:
        UserError: there is none.
    """
    if name not in PEERS:
        raise UserError(f"peer: {name!r} is unknown; known: {', '.join(PEERS)}")
    return PEERS[name]


def root() -> Path:
    """The folder of the venvs: $FASTPPO_PEERS, or fastppo/peers in the user's cache."""
    if chosen := os.environ.get("FASTPPO_PEERS"):
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "fastppo" / "peers"


def stamp(name: str) -> dict[str, Any] | None:
    """What was installed (requirements, version, packages); None where nothing whole is."""
    folder = root() / name
    try:
        found = files.parse_json((folder / STAMP).read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and isinstance(found.get("version"), str)
    return found if whole and (folder / "bin" / "python").exists() else None


def is_current(name: str) -> bool:
    """Whether it is installed with the versions that this fastppo pins."""
    found = stamp(name)
    return found is not None and found.get("requirements") == PEERS[name].pins


def installed(*, of_tokens: bool = False) -> list[str]:
    """Those of `names` that can be run, in the order of the table."""
    return [name for name in names(of_tokens=of_tokens) if is_current(name)]


def python_of(name: str) -> Path:
    """The python of a peer's venv.

    Raises:
        UserError: unknown, not installed, or installed with other versions.
    """
    peer = find(name)
    if peer.missing is not None:
        raise UserError(f"peer: {name!r} cannot be installed: {peer.missing}")
    if not is_current(name):
        state = "is not installed" if stamp(name) is None else "is installed in other versions"
        raise UserError(f"peer: {name!r} {state}; run `fastppo bench peers install {name}`")
    return root() / name / "bin" / "python"


def command(name: str) -> list[str]:
    """The command line of a peer's program, running the code of this fastppo.

    Raises:
        UserError: unknown or not installed, or it runs another fastppo and may not be changed.
    """
    python = python_of(name)
    try:
        link_package(python.parent.parent)
    except OSError as error:
        remedy = "set FASTPPO_PEERS to a folder of your own"
        raise UserError(f"peer: {name!r} runs another fastppo's code ({error}); {remedy}") from None
    # -P: a file in the current folder must not shadow a module
    return [str(python), "-P", "-m", PEERS[name].module]


def link_package(venv: Path) -> None:
    """Makes `import fastppo` in a venv mean this package, whose dependencies stay out of it."""
    ours = Path(fastppo.__file__).resolve().parent
    [site] = venv.glob("lib/python3*/site-packages")
    link = site / "fastppo"
    if link.is_symlink() and link.resolve() == ours:
        return
    part = link.with_name(f"fastppo.{os.getpid()}.part")
    part.symlink_to(ours)
    part.replace(link)  # another checkout's may be there
