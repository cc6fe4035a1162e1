"""Every backend of gather_frames against the stacks that a plain frame-stacking loop makes."""

import os
from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastppo.kernels import api

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SETTINGS: dict[str, Any] = {"deadline": None, "max_examples": 6 if INTERPRETED else 40}
# The interpreter truncates where a GPU rounds a float to bfloat16.
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


def played(
    num_steps: int, num_envs: int, size: tuple[int, int], num_stack: int, seed: int, resets: float
) -> tuple[Tensor, Tensor, Tensor]:
    """frames, age, and the stacks [T, N, num_stack, H, W] of games that restart at random."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_steps + num_stack - 1, num_envs, *size)
    frames = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    restart = torch.rand(shape[:2], generator=generator) < resets
    restart[0] = True
    age = torch.zeros(shape[:2], dtype=torch.uint8)
    stacks = torch.zeros(shape[0], num_envs, num_stack, *size, dtype=torch.uint8)
    for n in range(num_envs):
        stack: deque[Tensor] = deque(maxlen=num_stack)
        steps = 0
        for t in range(shape[0]):
            copies = num_stack if restart[t, n] else 1
            stack.extend([frames[t, n]] * copies)
            steps = 0 if restart[t, n] else steps + 1
            stacks[t, n] = torch.stack(list(stack))
            age[t, n] = min(steps, num_stack - 1)
    first = num_stack - 1
    return frames, age[first:].contiguous(), stacks[first:]


@settings(**SETTINGS)
@given(
    num_steps=st.integers(1, 6),
    num_envs=st.integers(1, 4),
    size=st.sampled_from([(1, 1), (3, 5), (4, 8)] + ([] if INTERPRETED else [(40, 41), (84, 84)])),
    num_stack=st.integers(1, 6),
    batch_size=st.integers(0, 5 if INTERPRETED else 40),
    dtype=st.sampled_from(DTYPES),
    channels_last=st.booleans(),
    resets=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_rebuilds_the_stacks(
    backend: str,
    num_steps: int,
    num_envs: int,
    size: tuple[int, int],
    num_stack: int,
    batch_size: int,
    dtype: torch.dtype,
    channels_last: bool,
    resets: float,
    seed: int,
) -> None:
    frames, age, stacks = played(num_steps, num_envs, size, num_stack, seed, resets)
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, num_steps * num_envs, (batch_size,), generator=generator)

    images = api.gather_frames(
        frames, age, index, num_stack=num_stack, dtype=dtype, channels_last=channels_last,
        backend=backend,
    )  # fmt: skip

    chosen = stacks.flatten(0, 1)[index]
    assert images.dtype == dtype
    assert images.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    assert torch.equal(images, (chosen.float() * (1.0 / 255.0)).to(dtype))
    torch.testing.assert_close(images.double(), chosen.double() / 255.0, rtol=2**-7, atol=0.0)


def test_the_oracle_divides_in_float64() -> None:
    frames, age, stacks = played(3, 2, (4, 4), 4, 0, 0.3)

    images = api.gather_frames(frames, age, torch.arange(6), dtype=torch.float64)

    torch.testing.assert_close(images, stacks.flatten(0, 1).double() / 255.0, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("channels_last", [False, True])
def test_hand_worked(backend: str, channels_last: bool) -> None:
    """One environment, frames 1, 2, 3 of history, then 4, and 5 that opens a new game, and 6.

    Row 0 looks back at 1, 2, 3; row 1 only at itself; row 2 at 5 twice over.
    """
    frames = torch.tensor([1, 2, 3, 4, 5, 6], dtype=torch.uint8).view(6, 1, 1, 1)
    age = torch.tensor([[3], [0], [1]], dtype=torch.uint8)

    images = api.gather_frames(
        frames, age, torch.arange(3), scale=0.5, channels_last=channels_last, backend=backend
    )

    assert images.flatten(1).tolist() == [
        [0.5, 1.0, 1.5, 2.0],
        [2.5, 2.5, 2.5, 2.5],
        [2.5, 2.5, 2.5, 3.0],
    ]


@pytest.mark.parametrize("channels_last", [False, True])
def test_same_input_gives_the_same_bits(backend: str, channels_last: bool) -> None:
    frames, age, _ = played(4, 3, (3, 5), 4, 1, 0.2)
    index = torch.arange(12)

    first, second = (
        api.gather_frames(frames, age, index, channels_last=channels_last, backend=backend)
        for _ in range(2)
    )

    assert torch.equal(first, second)


@pytest.mark.parametrize("channels_last", [False, True])
def test_writes_into_out_and_honours_strides(backend: str, channels_last: bool) -> None:
    frames, age, stacks = played(4, 3, (4, 6), 4, 2, 0.3)
    strided = (frames.transpose(2, 3).contiguous().transpose(2, 3), age.T.contiguous().T)
    index = torch.tensor([7, 0, 3, 0, 11, 0])[::2]
    assert not any(t.is_contiguous() for t in (*strided, index))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.zeros(3, 4, 4, 6, dtype=torch.float16).contiguous(memory_format=layout)

    written = api.gather_frames(
        *strided, index, scale=1.0, channels_last=channels_last, out=out, backend=backend
    )

    assert written is out
    assert torch.equal(out, stacks.flatten(0, 1)[index].half())


@pytest.mark.parametrize("bad", [-1, 6, 2**40])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_row_out_of_range_is_loud(backend: str, channels_last: bool, bad: int) -> None:
    """An error on the CPU; where that would wait for the device, NaN."""
    frames, age, _ = played(3, 2, (2, 2), 4, 0, 0.0)
    index = torch.tensor([0, bad])

    if backend == "triton":
        images = api.gather_frames(frames, age, index, channels_last=channels_last, backend=backend)
        assert images.isnan().flatten(1).all(1).tolist() == [False, True]
        assert images[0].isfinite().all()
    else:
        with pytest.raises(IndexError, match="index"):
            api.gather_frames(frames, age, index, channels_last=channels_last, backend=backend)


GOOD: dict[str, Any] = {
    "frames": torch.zeros(5, 2, 4, 4, dtype=torch.uint8),
    "age": torch.zeros(2, 2, dtype=torch.uint8),
    "index": torch.zeros(3, dtype=torch.int64),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_stack": 0}, "num_stack=0: expected 1"),
        ({"frames": torch.zeros(5, 2, 4, 4)}, "frames has .*float32: expected uint8"),
        ({"frames": GOOD["frames"][0]}, r"frames has shape \[2, 4, 4\]"),
        ({"frames": GOOD["frames"][:3]}, "with T >= 1"),
        (
            {"age": torch.zeros(3, 2, dtype=torch.uint8)},
            r"age has shape .* expected uint8 \[2, 2\]",
        ),
        ({"age": torch.zeros(2, 2)}, "age has .*float32: expected uint8"),
        ({"index": torch.zeros(3)}, "index has .*int64"),
        ({"dtype": torch.int32}, "dtype=torch.int32: expected one of"),
        ({"out": torch.zeros(3, 4, 4, 5)}, r"out is \[3, 4, 4, 5\] .* expected \[3, 4, 4, 4\]"),
        ({"out": torch.zeros(3, 4, 4, 4), "channels_last": True}, "out has strides"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.gather_frames(**(GOOD | change))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("num_stack", [1, 4])
def test_is_one_registered_operation(backend: str, channels_last: bool, num_stack: int) -> None:
    frames, age, _ = played(2, 2, (3, 4), num_stack, 0, 0.2)
    index = torch.tensor([3, 0])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.zeros(2, num_stack, 3, 4).contiguous(memory_format=layout)
    common = (frames, age, index, num_stack)

    torch.library.opcheck(
        torch.ops.fastppo.gather_frames.default,
        (*common, torch.float32, channels_last, 0.5, backend),
    )
    torch.library.opcheck(
        torch.ops.fastppo.gather_frames_out.default, (*common, channels_last, 0.5, out, backend)
    )


def test_compiles_into_one_graph(backend: str) -> None:
    frames, age, stacks = played(2, 2, (3, 4), 4, 0, 0.2)

    def rebuild(index: Tensor) -> Tensor:
        return api.gather_frames(frames, age, index, scale=1.0, backend=backend) + 1.0

    compiled = torch.compile(rebuild, fullgraph=True, backend="aot_eager")

    assert torch.equal(compiled(torch.arange(4)), stacks.flatten(0, 1).float() + 1.0)


@pytest.mark.parametrize("channels_last", [False, True])
def test_autograd_notices_a_buffer_that_is_written_again(backend: str, channels_last: bool) -> None:
    """A convolution keeps its input for its backward pass."""
    frames, age, _ = played(3, 2, (4, 4), 2, 0, 0.2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.zeros(2, 2, 4, 4).to(memory_format=layout)
    options: dict[str, Any] = {"num_stack": 2, "channels_last": channels_last, "backend": backend}
    convolution = torch.nn.Conv2d(2, 1, 3)
    api.gather_frames(frames, age, torch.tensor([0, 1]), **options, out=out)
    images = convolution(out).sum()

    api.gather_frames(frames, age, torch.tensor([4, 5]), **options, out=out)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        images.backward()
