"""Reads a torch.profiler trace: operators, launches, syncs, copies, and where the time went.

Reads the Chrome trace that the profiler exports, which is what the user gets to see, too. Its
events (`ph` X, times in microseconds) by category: `cpu_op` an operator on the host,
`user_annotation` a region that we name (`fastppo:<phase>`, `fastppo::<kernel> [elements]`), and
on a GPU `cuda_runtime` and `cuda_driver` host calls, `kernel`, `gpu_memcpy` and `gpu_memset` the
device's work.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

PHASE, KERNEL = "fastppo:", "fastppo::"
"""Prefixes of our annotations: a phase of the update, and a call of `kernels.api`."""
SMALL, SHORT_US = 8192, 10.0
"""A call on fewer elements, or of less own time, costs more than what it computes: dispatch."""
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_convolution",
            "aten::convolution_backward", "aten::cudnn_convolution", "aten::_slow_conv2d_forward",
            "aten::thnn_conv2d", "aten::convolution_overrideable")  # fmt: skip
PRODUCT_KERNELS = ("gemm", "conv", "cutlass", "cudnn", "xmma", "wgrad", "dgrad", "splitk")
COPIES = ("aten::copy_", "aten::_to_copy", "aten::cat", "aten::index", "aten::index_select",
          "aten::gather", "fastppo::gather_rows", "fastppo::gather_frames")  # fmt: skip
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaLaunchCooperativeKernel")
SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize",
         "cuStreamSynchronize", "cuCtxSynchronize")  # fmt: skip
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
ITEM_BYTES = {
    "float": 4, "double": 8, "c10::Half": 2, "c10::BFloat16": 2, "long int": 8, "long": 8,
    "int": 4, "short": 2, "unsigned char": 1, "signed char": 1, "char": 1, "bool": 1,
}  # fmt: skip

Event = dict[str, Any]
Spans = list[tuple[float, float]]
"""Disjoint intervals in order, in microseconds."""


@dataclass(slots=True)
class Operator:
    """All calls of one name."""

    kind: str
    """product, copy, kernel (ours) or other."""
    calls: int = 0
    self_us: float = 0.0
    """Host time in it and in nothing that it called."""
    device_us: float = 0.0
    """Device time of the work that it launched itself."""
    small_us: float = 0.0
    """Part of self_us in calls that are SMALL or SHORT_US: views, bookkeeping, a few rows."""


@dataclass(slots=True)
class Trace:
    """One update, or the sum of several."""

    operators: dict[str, Operator] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds inside each phase's annotation, by the host's clock."""
    calls: int = 0
    """Operators called, those called by others included."""
    copies: dict[str, list[int]] = field(default_factory=dict)
    """Number and bytes by kind: host, HtoD, DtoH, DtoD, to_copy."""
    launches: int = 0
    syncs: int = 0
    device: dict[str, float] = field(default_factory=dict)
    """Device seconds outside the env phase, by kind: product, copy, other."""
    busy_s: float = 0.0
    """Seconds outside the env phase in which the device had work."""
    sync_idle_s: float = 0.0
    """Seconds in which the host waited for a device that had nothing to do."""

    def host_seconds(self, *kinds: str, small: bool = False) -> float:
        """Own time of operators of these kinds, without or with the small calls."""
        chosen = [op for op in self.operators.values() if op.kind in kinds]
        return sum(op.self_us - (0.0 if small else op.small_us) for op in chosen) * 1e-6


def read(events: Iterable[Event]) -> Trace:
    """What the `traceEvents` of a Chrome trace say."""
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    trace = Trace()
    annotations = [e for e in whole if e.get("cat") == "user_annotation"]
    phases = [e for e in annotations if _is_phase(e)]
    for event in phases:
        name = event["name"].removeprefix(PHASE)
        trace.phases[name] = trace.phases.get(name, 0.0) + event["dur"] * 1e-6
    operators = [e for e in whole if e.get("cat") == "cpu_op"]
    operators += [e for e in annotations if e["name"].startswith(KERNEL)]
    by_id = _host(trace, operators)
    _device(trace, whole, _union(e for e in phases if e["name"] == f"{PHASE}env"), by_id)
    return trace


def _is_phase(event: Event) -> bool:
    return event["name"].startswith(PHASE) and not event["name"].startswith(KERNEL)


def _kind(name: str) -> str:
    if name in PRODUCTS:
        return "product"
    if name in COPIES:
        return "copy"
    return "kernel" if name.startswith(KERNEL) else "other"


def _host(trace: Trace, events: Sequence[Event]) -> dict[int, str]:
    """Own times of operators, by who encloses whom on a thread; names by external id."""
    own: dict[int, float] = {}
    stacks: dict[Any, list[Event]] = {}
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        stack = stacks.setdefault(event["tid"], [])
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= event["ts"]:
            stack.pop()
        own[id(event)] = event["dur"]
        if stack:
            own[id(stack[-1])] -= event["dur"]
        stack.append(event)
    by_id: dict[int, str] = {}
    for event in events:
        name, _, suffix = event["name"].partition(" [")
        arguments = event.get("args", {})
        self_us = max(own[id(event)], 0.0)
        operator = trace.operators.setdefault(name, Operator(_kind(name)))
        operator.calls += 1
        operator.self_us += self_us
        elements = int(suffix[:-1]) if name.startswith(KERNEL) else elements_of(arguments)
        if elements < SMALL or self_us < SHORT_US:
            operator.small_us += self_us
        if "External id" in arguments:
            by_id[arguments["External id"]] = name
        if name == "aten::copy_":
            _add_copy(trace, "host", bytes_of(arguments))
        elif name == "aten::_to_copy":
            _add_copy(trace, "to_copy", bytes_of(arguments))
    trace.calls += len(events)
    return by_id


def bytes_of(arguments: dict[str, Any]) -> int:
    """Bytes of an operator's first tensor; 0 where the trace does not tell its shape."""
    dims, types = arguments.get("Input Dims") or [[]], arguments.get("Input type") or [""]
    return _elements(dims[0]) * ITEM_BYTES.get(types[0], 0)


def elements_of(arguments: dict[str, Any]) -> int:
    """Elements of an operator's largest tensor; 0 where the trace does not tell."""
    return max((_elements(shape) for shape in arguments.get("Input Dims") or []), default=0)


def _elements(shape: Any) -> int:
    """Elements of a shape, or of a list of shapes; a scalar's empty shape counts as 1."""
    if shape and isinstance(shape[0], list):
        return sum(_elements(each) for each in shape)
    return math.prod(shape)


def _add_copy(trace: Trace, kind: str, num_bytes: int) -> None:
    count = trace.copies.setdefault(kind, [0, 0])
    count[0] += 1
    count[1] += num_bytes


def _device(trace: Trace, events: Sequence[Event], env: Spans, by_id: dict[int, str]) -> None:
    work = [e for e in events if e.get("cat") in DEVICE_WORK]
    calls = [e for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")]
    trace.launches += sum(e["name"].startswith(LAUNCHES) for e in calls)
    waits = [e for e in calls if e["name"].startswith(SYNCS)]
    trace.syncs += len(waits)
    for event in work:
        name = event["name"]
        kind = "copy" if event["cat"] == "gpu_memcpy" else "other"
        if any(part in name.lower() for part in PRODUCT_KERNELS):
            kind = "product"
        outside = event["dur"] - _overlap(_union([event]), env)
        trace.device[kind] = trace.device.get(kind, 0.0) + outside * 1e-6
        launched_by = by_id.get(event.get("args", {}).get("External id", -1))
        if launched_by is not None:
            trace.operators[launched_by].device_us += event["dur"]
        if event["cat"] == "gpu_memcpy":
            direction = next((d for d in ("HtoD", "DtoH", "DtoD") if d in name), "other")
            _add_copy(trace, direction, int(event.get("args", {}).get("bytes", 0)))
    busy = _union(work)
    trace.busy_s += (_length(busy) - _overlap(busy, env)) * 1e-6
    waited = _union(waits)
    trace.sync_idle_s += (_length(waited) - _overlap(waited, busy)) * 1e-6


def _union(events: Iterable[Event]) -> Spans:
    """The times covered by any of the events."""
    spans: Spans = []
    for start, end in sorted((e["ts"], e["ts"] + e["dur"]) for e in events):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def _length(spans: Spans) -> float:
    return sum(end - start for start, end in spans)


def _overlap(a: Spans, b: Spans) -> float:
    total, i, j = 0.0, 0, 0
    while i < len(a) and j < len(b):
        total += max(0.0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return total


def merge(traces: Sequence[Trace]) -> Trace:
    """The sum of several updates."""
    total = Trace()
    for trace in traces:
        for name, operator in trace.operators.items():
            into = total.operators.setdefault(name, Operator(operator.kind))
            into.calls += operator.calls
            into.self_us += operator.self_us
            into.device_us += operator.device_us
            into.small_us += operator.small_us
        for into_seconds, seconds in ((total.phases, trace.phases), (total.device, trace.device)):
            for name, value in seconds.items():
                into_seconds[name] = into_seconds.get(name, 0.0) + value
        for kind, (count, num_bytes) in trace.copies.items():
            sums = total.copies.setdefault(kind, [0, 0])
            sums[0] += count
            sums[1] += num_bytes
        total.calls += trace.calls
        total.launches += trace.launches
        total.syncs += trace.syncs
        total.busy_s += trace.busy_s
        total.sync_idle_s += trace.sync_idle_s
    return total
