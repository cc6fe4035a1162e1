"""How a numba kernel of this package is compiled, cached and given its tensors.

An address costs 0.1 us a call, a numpy array 1.2 us. So a kernel takes every tensor as an int64
address and its sizes, and makes arrays of them with
`numba.carray(pointer(address), shape, dtype)`. Address 0 stands for an absent tensor.
"""

from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, get_args, get_type_hints

import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, sigutils
from numba.extending import intrinsic
from torch import Tensor

from fastppo.kernels.tools import numba_cache

# Contraction to FMA only. "nnan" and "ninf" would hide a diverged policy; "reassoc" would merge the
# two-part ln 2 of an exponential and the `+ MAGIC - MAGIC` that rounds.
OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
# Lets a sum run on all SIMD lanes; its order is still fixed when it is compiled.
SUMMING: dict[str, Any] = OPTIONS | {"fastmath": {"contract", "reassoc"}}


SIZE = 4
"""Bytes of a float32."""


numba_cache.check()


def _numba_type(annotation: Any) -> Any:
    """What a parameter or a field is to numba."""
    if isinstance(annotation, type) and issubclass(annotation, tuple):
        fields = get_type_hints(annotation, include_extras=True).values()
        return types.BaseTuple.from_types([_numba_type(field) for field in fields], annotation)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    _, name = get_args(annotation)
    (argument,) = sigutils.normalize_signature(f"void({name})")[0]
    return argument


_SCALARS = {int: types.int64, float: types.float64, bool: types.boolean}


def kernel_of_records(function: Callable[..., Any]) -> Any:
    """As `kernel`, for a function whose parameters are annotated and which returns nothing.

    A parameter is an int, a float, a bool, an array as `Annotated[NDArray[...], "float32[::1]"]`
    with its type in numba, or a NamedTuple of such fields: a list of arguments that is written
    once, where it is declared. A call costs 2 us for a dozen arrays.
    """
    annotations = get_type_hints(function, include_extras=True).values()
    return kernel(types.void(*map(_numba_type, annotations)))(function)


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function for `signature` at once, and keeps the machine code on disk.

    With a signature given, a call that does not fit raises instead of compiling in the middle of
    a run. numba renews its cache when the function's own file changes, but not when a helper's
    does. It does compare what a closure holds, so a digest of all that the file imports from this
    package is put into one.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        plain: Any = function
        code = plain.__code__
        stamped = FunctionType(
            code.replace(co_freevars=(*code.co_freevars, "_stamp")),
            plain.__globals__,
            plain.__name__,
            plain.__defaults__,
            (*(plain.__closure__ or ()), CellType(numba_cache.stamp(code.co_filename))),
        )
        stamped.__module__ = plain.__module__
        stamped.__qualname__ = plain.__qualname__
        stamped.__doc__ = plain.__doc__
        with numba_cache.kept():
            return njit(signature, cache=True, **OPTIONS)(stamped)

    return decorate


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_context: Any, address: Any) -> Any:
    """The void pointer of an int64 address, inside a kernel."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@intrinsic  # type: ignore[untyped-decorator]
def address_of(_context: Any, array: Any) -> Any:
    """Where an array begins, inside a kernel."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        fields = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(fields.data, ir.IntType(64))

    return types.int64(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def call_c(_context: Any, function: Any, first: Any, second: Any) -> Any:
    """Calls the C function at an address with two integers or pointers; its integer result.

    A function of one argument never looks at the second.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        number = ir.IntType(64)
        kind = ir.FunctionType(number, [number, number]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(_context: Any, address: Any) -> Any:
    """The int64 at an address, and all that its writer wrote before `store_release`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_release(_context: Any, address: Any, value: Any) -> Any:
    """Writes an int64 for another thread's `load_acquire`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store_atomic(arguments[1], place, "release", 8)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def keep(_context: Any, array: Any) -> Any:
    """No-op that keeps `array` alive to this point: taking its address does not count as a use."""

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> ir.Value:
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def _fetch(_context: Any, address: Any) -> Any:
    """Asks for a cache line, into L2."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        to_read, to_l2, data = (ir.Constant(number, value) for value in (0, 2, 1))
        builder.call(fetch, [builder.inttoptr(arguments[0], byte), to_read, to_l2, data])
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(address), generate


@njit(**OPTIONS)  # type: ignore[untyped-decorator]
def fetch(address: Any, size: Any) -> None:
    """Prefetches bytes without waiting; past the end of an array is fine.

    A little at a time: a core keeps some twenty cache lines on the way, and waits with the next.
    """
    for line in range(address, address + size, 64):
        _fetch(line)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A new tensor in the memory that kernels write, whatever torch's defaults are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def dense(tensor: Tensor) -> Tensor:
    """`tensor`, contiguous. Hold on to it until the kernel that got its address returns."""
    return tensor if tensor.is_contiguous() else tensor.detach().contiguous()


def address(tensor: Tensor | None) -> int:
    """Where a contiguous tensor begins; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()
