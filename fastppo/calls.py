"""EnvPool's C calls: how compiled code steps a pool without Python in between.

EnvPool exports `send` and `recv` for JAX, as XLA FFI handlers. A handler is a C function of one
argument: a call frame that names the buffers to read and to write. JAX is not needed to call it.
The structures below are those of `xla/ffi/api/c_api.h` (API 0.0). A handler checks their sizes, and
returns an error if it was built for others.
"""

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastppo.errors import MachineError

EXECUTE = 3
"""The stage in which a handler does its work."""
BUFFER, SCALAR = 1, 3
"""Kinds of an argument, and of an attribute."""
S64 = 5
DTYPES = {"bool": 1, "int8": 2, "int16": 3, "int32": 4, "int64": S64, "uint8": 6, "uint16": 7,
          "uint32": 8, "uint64": 9, "float32": 11, "float64": 12}  # fmt: skip
"""XLA's numbers of element types."""


class _Base(ctypes.Structure):
    _fields_: ClassVar[Any] = (("size", c_size_t), ("extension", c_void_p))


class _Version(_Base):
    _fields_: ClassVar[Any] = (("major", c_int), ("minor", c_int))


class _Error(_Base):
    _fields_: ClassVar[Any] = (("message", c_char_p), ("code", c_int))


class _Api(_Base):
    _fields_: ClassVar[Any] = (
        ("version", _Version),
        ("internal", c_void_p),
        ("functions", c_void_p * 40),
    )


class _Values(_Base):
    _fields_: ClassVar[Any] = (("count", c_int64), ("kinds", c_void_p), ("values", c_void_p))


class _Attributes(_Base):
    _fields_: ClassVar[Any] = (
        ("count", c_int64), ("kinds", c_void_p), ("names", c_void_p), ("values", c_void_p)
    )  # fmt: skip


class _Frame(_Base):
    _fields_: ClassVar[Any] = (
        ("api", c_void_p), ("context", c_void_p), ("stage", c_int), ("arguments", _Values),
        ("results", _Values), ("attributes", _Attributes),
    )  # fmt: skip


class _Buffer(_Base):
    _fields_: ClassVar[Any] = (
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("shape", c_void_p),
    )


class _Text(ctypes.Structure):
    _fields_: ClassVar[Any] = (("start", c_char_p), ("length", c_size_t))


class _Scalar(ctypes.Structure):
    _fields_: ClassVar[Any] = (("dtype", c_int), ("value", c_void_p))


_Handler = ctypes.CFUNCTYPE(c_void_p, c_void_p)
_MakeError = ctypes.CFUNCTYPE(c_void_p, POINTER(_Error))
_messages: list[str] = []


@_MakeError  # type: ignore[untyped-decorator]
def _make_error(error: Any) -> int:
    """Called by a handler that refuses its frame."""
    _messages.append((error.contents.message or b"no reason").decode(errors="replace"))
    return 1


class Call(NamedTuple):
    """A handler and its frame: calling `function(frame)` does it, and returns 0."""

    function: int
    frame: int
    arguments: list[NDArray[Any]]
    """Buffers it reads; the first is the pool's handle."""
    results: list[NDArray[Any]]
    """Buffers it writes; the first is the handle again."""

    def __call__(self) -> None:
        """Makes the call.

        Raises:
            MachineError: EnvPool refuses the frame.
        """
        if _Handler(self.function)(self.frame):
            raise MachineError(f"EnvPool: {_messages.pop()}; pass --engine eager")


class Calls:
    """The two calls of a synchronous pool, with buffers of their own.

    Args:
        pool: from `pools.make_pool`; its `_xla` must be there.
    """

    def __init__(self, pool: Any) -> None:
        self._kept: list[Any] = []
        self._api = _Api(version=_Version(size=ctypes.sizeof(_Version)))
        self._api.size = ctypes.sizeof(_Api)
        for i in range(len(self._api.functions)):
            self._api.functions[i] = ctypes.cast(_make_error, c_void_p)
        handlers = dict(pool._xla())
        self.send = self._call(*handlers["send"])
        self.recv = self._call(*handlers["recv"])
        self.answers = dict(zip(pool._state_keys, self.recv.results[1:], strict=True))
        """What `recv` writes, by EnvPool's names."""
        named = dict(zip(pool._action_keys, self.send.arguments[1:], strict=True))
        self.actions: NDArray[Any] = named["action"]
        for name in ("env_id", "players.env_id"):
            named[name][:] = pool.all_env_ids

    def _call(self, handle: bytes, specs: Any, capsules: Any) -> Call:
        read, written = (
            [np.zeros(shape, dtype) for dtype, shape in part] for part in specs
        )  # fmt: skip
        read[0][:] = np.frombuffer(handle, np.uint8)
        number = int.from_bytes(handle, sys.byteorder)
        frame = _Frame(
            size=ctypes.sizeof(_Frame),
            api=ctypes.addressof(self._api),
            stage=EXECUTE,
            arguments=self._values(read),
            results=self._values(written),
            attributes=self._handle(number),
        )
        self._kept.append(frame)
        return Call(_address(capsules[0]), ctypes.addressof(frame), read, written)

    def _values(self, arrays: list[NDArray[Any]]) -> _Values:
        buffers = []
        for array in arrays:
            shape = self._keep((c_int64 * max(array.ndim, 1))(*array.shape))
            buffers.append(
                _Buffer(
                    size=ctypes.sizeof(_Buffer),
                    dtype=DTYPES[array.dtype.name],
                    data=array.ctypes.data,
                    rank=array.ndim,
                    shape=shape,
                )
            )
        self._kept.append(buffers)
        count = len(arrays)
        kinds = self._keep((c_int * count)(*[BUFFER] * count))
        values = self._keep((c_void_p * count)(*map(ctypes.addressof, buffers)))
        return _Values(size=ctypes.sizeof(_Values), count=count, kinds=kinds, values=values)

    def _handle(self, number: int) -> _Attributes:
        """The pool's handle as the attribute that EnvPool reads."""
        value = self._keep(c_int64(number))
        scalar = self._keep(_Scalar(S64, value))
        text = self._keep(_Text(b"handle", len(b"handle")))
        return _Attributes(
            size=ctypes.sizeof(_Attributes),
            count=1,
            kinds=self._keep((c_int * 1)(SCALAR)),
            names=self._keep((c_void_p * 1)(text)),
            values=self._keep((c_void_p * 1)(scalar)),
        )

    def _keep(self, structure: Any) -> int:
        """Keeps a structure alive; where it begins."""
        self._kept.append(structure)
        return ctypes.addressof(structure)


def c_function(name: str) -> int:
    """Where a function of the C library begins, for compiled code to call."""
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), c_void_p).value
    assert address is not None
    return address


def _address(capsule: Any) -> int:
    """The C function in a capsule without a name."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c_void_p, [ctypes.py_object, c_char_p]
    address: int = get(capsule, None)
    return address
