"""What is read from a torch.profiler trace, on traces small enough to add up by hand."""

from typing import Any

import pytest

from fastppo.bench.profile import run as profile_run
from fastppo.bench.profile import trace as profile_trace


def event(name: str, cat: str, start: float, dur: float, tid: int = 1, **args: Any) -> Any:
    arguments = {key.replace("_", " "): value for key, value in args.items()}
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": dur, "tid": tid,
            "args": arguments}  # fmt: skip


def test_own_time_leaves_out_what_an_operator_calls() -> None:
    trace = profile_trace.read(
        [
            event("fastppo:update", "user_annotation", 0, 1000),
            event("aten::linear", "cpu_op", 10, 100),
            event("aten::addmm", "cpu_op", 20, 80, Input_Dims=[[64], [256, 64], [64, 64]]),
            event("aten::addmm", "cpu_op", 200, 30, Input_Dims=[[64], [8, 64], [64, 64]]),
            event("fastppo::gather_rows [20000]", "user_annotation", 300, 200),
            event("aten::copy_", "cpu_op", 310, 50, Input_Dims=[[256, 64], [256, 64]],
                  Input_type=["float", "unsigned char"]),
            # another thread: not inside anything above
            event("aten::mul", "cpu_op", 320, 20, tid=2, Input_Dims=[[100, 100]]),
        ]
    )  # fmt: skip

    own = {name: operator.self_us for name, operator in trace.operators.items()}
    assert own == {
        "aten::linear": 20, "aten::addmm": 110, "fastppo::gather_rows": 150, "aten::copy_": 50,
        "aten::mul": 20,
    }  # fmt: skip
    assert trace.phases == {"update": pytest.approx(1e-3)}
    # eight rows are dispatch, 256 are work
    assert trace.host_seconds("product") == pytest.approx(80e-6)
    assert trace.host_seconds("product", small=True) == pytest.approx(110e-6)
    assert trace.host_seconds("copy") == pytest.approx(200e-6)
    assert trace.copies == {"host": [1, 256 * 64 * 4]}
    assert trace.calls == 6


def test_a_gpu_trace_is_counted_by_its_runtime_events() -> None:
    """Written after the format; no GPU was at hand to record one."""
    trace = profile_trace.read(
        [
            event("fastppo:env", "user_annotation", 0, 100),
            event("fastppo:update", "user_annotation", 100, 900),
            event("aten::addmm", "cpu_op", 110, 40, External_id=7),
            event("cudaLaunchKernel", "cuda_runtime", 120, 5),
            event("cuLaunchKernelEx", "cuda_driver", 160, 5),
            event("cudaMemcpyAsync", "cuda_runtime", 170, 5),
            event("cudaStreamSynchronize", "cuda_runtime", 300, 400),
            event("sm90_xmma_gemm_f32", "kernel", 50, 250, tid=7, External_id=7),
            event("gae_kernel", "kernel", 300, 100, tid=7),
            event("Memcpy DtoH (Device -> Pinned)", "gpu_memcpy", 400, 50, tid=7, bytes=64),
            event("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", 420, 50, tid=8, bytes=4096),
        ]
    )

    assert (trace.launches, trace.syncs) == (2, 1)
    assert trace.copies == {"DtoH": [1, 64], "HtoD": [1, 4096]}
    assert trace.operators["aten::addmm"].device_us == 250
    # the first 50 us of the product ran behind env.step and bound nothing
    assert trace.device["product"] == pytest.approx(200e-6)
    assert trace.device["copy"] == pytest.approx(100e-6)
    assert trace.busy_s == pytest.approx((470 - 100) * 1e-6)
    # of the wait from 300 to 700 the device worked until 470
    assert trace.sync_idle_s == pytest.approx(230e-6)
    assert profile_trace.merge([trace, trace]).busy_s == pytest.approx(2 * trace.busy_s)


def test_the_allocators_peak_is_what_was_held_at_once() -> None:
    def change(at: float, num_bytes: int) -> Any:
        args = {"Device Type": 0, "Bytes": num_bytes, "Ev Idx": int(at)}
        return {"ph": "i", "name": "[memory]", "ts": at, "args": args}

    events = [change(1, 100), change(3, -100), change(2, 50), change(4, 80)]

    assert profile_run.allocator_peak(events) == 150
