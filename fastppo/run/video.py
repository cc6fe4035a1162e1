"""A film of an evaluation: what the first environment draws, as MP4 or GIF, by imageio."""

import ctypes
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastppo import files
from fastppo.errors import MachineError, UserError, why
from fastppo.tasks import EnvSpec

FRAMES_PER_S = 30.0
ATARI_FRAMES_PER_S = 60.0
"""Of the console; a decision shows one frame of `frame_skip`."""
PROBE_S = 60.0
MESA = ("libOSMesa.so.8", "libOSMesa.so.6")
"""Software OpenGL for MuJoCo, which EnvPool uses where it is loaded already (1.2.5)."""
_PROBE = """
import sys, warnings
warnings.simplefilter("ignore")
import envpool
from fastppo.run.video import load_mesa
load_mesa()
pool = envpool.make(sys.argv[1], env_type="gymnasium", num_envs=1, render_mode="rgb_array")
pool.reset()
assert pool.render() is not None, "it renders nothing"
"""


def check(path: Path) -> None:
    """Refuses a film that cannot be written, before anything is played.

    Raises:
        UserError: another kind of file, or imageio is missing.
    """
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"video: {path} must end in .mp4 or .gif")
    try:
        import imageio.v2  # noqa: F401

        if path.suffix == ".mp4":
            import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"video: {error.name} is missing; pip install imageio imageio-ffmpeg"
        ) from None


def load_mesa() -> None:
    """Loads Mesa's software OpenGL for the whole process, where it is installed."""
    for name in MESA:
        with suppress(OSError):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            return


def prepare_drawing(env_id: str) -> None:
    """Draws once in a process of its own: MuJoCo ends the process where there is no OpenGL.

    Raises:
        UserError: EnvPool cannot draw the task here.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, env_id], capture_output=True, text=True, timeout=PROBE_S
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or ["it ended without a word"]
        raise UserError(
            f"video: EnvPool cannot draw {env_id} here ({said[-1]}); MuJoCo needs libosmesa6, as "
            "in `apt-get install libosmesa6`"
        )
    load_mesa()


class Video:
    """The file; it is there, whole, when the block has ended without an error.

    Args:
        spec: of the task, for the speed that it is shown at.
    """

    def __init__(self, path: Path, spec: EnvSpec) -> None:
        self.path = path
        rate = ATARI_FRAMES_PER_S / spec.frame_skip if spec.family == "atari" else FRAMES_PER_S
        self._rate = max(rate, 1.0)
        self._folder = tempfile.TemporaryDirectory()
        self._part = Path(self._folder.name) / f"part{path.suffix}"
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Adds a picture, [H, W, 3]."""
        import imageio.v2

        if self._writer is None:
            gif = {"duration": 1000 / self._rate, "loop": 0}
            mp4 = {"fps": self._rate, "macro_block_size": 1}
            options: Any = gif if self.path.suffix == ".gif" else mp4
            self._writer = imageio.v2.get_writer(self._part, **options)
        height, width = frame.shape[:2]  # the codec wants even sides
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._writer.append_data(even)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._writer is not None:
                    self._writer.close()
            if kind is None:
                with self._part.open("rb") as source, files.replacing(self.path) as target:
                    shutil.copyfileobj(source, target)
        except OSError as failed:
            raise MachineError(f"video: cannot write {self.path} ({why(failed)})") from failed
        finally:
            self._folder.cleanup()
