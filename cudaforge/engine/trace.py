"""What a call launches on the GPU, by CUPTI's activity records, read with ctypes in the traced process.

torch.profiler reads the same records and takes about four seconds for its first use in a process; this takes some
tens of milliseconds, so every evaluation can afford it. Only the fields that have kept their place since CUDA 11 are
read (`start` and `end` of all, `name` of a kernel record), and records are walked by CUPTI itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MEMCPY, MEMSET, CONCURRENT_KERNEL = 1, 2, 10
_BUFFER = 4 << 20
_MAX_RECORDS = 20_000


class TraceError(Exception):
    """CUPTI is not here, or refuses."""


class _KernelRecord(ctypes.Structure):
    """The head of CUpti_ActivityKernel4 and later."""

    _fields_ = [
        ("kind", ctypes.c_uint32),
        ("cache", ctypes.c_uint8 * 2),
        ("registers", ctypes.c_uint16),
        ("partitioned", ctypes.c_uint32 * 2),
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("completed", ctypes.c_uint64),
        ("ids", ctypes.c_uint32 * 3),
        ("grid", ctypes.c_int32 * 3),
        ("block", ctypes.c_int32 * 3),
        ("shared", ctypes.c_int32 * 2),
        ("local", ctypes.c_uint32 * 2),
        ("correlation", ctypes.c_uint32),
        ("grid_id", ctypes.c_int64),
        ("name", ctypes.c_char_p),
    ]


class _MemoryRecord(ctypes.Structure):
    """The head of CUpti_ActivityMemcpy and CUpti_ActivityMemset."""

    _fields_ = [
        ("kind", ctypes.c_uint32),
        ("how", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
    ]


_REQUEST = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)
_COMPLETE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


def launches(call: Callable[[], Any], count: int) -> list[list[list[Any]]]:
    """Calls `count` times; for each call its kernels and copies as [name, start_ns, end_ns].

    Names are mangled; copies and fills are `[memcpy]` and `[memset]`. Raises TraceError where CUPTI cannot be had.
    """
    cupti = _library()
    records: list[list[Any]] = []
    buffers: list[Any] = []

    @_REQUEST  # type: ignore[untyped-decorator]
    def request(buffer: Any, size: Any, most: Any) -> None:
        memory = ctypes.create_string_buffer(_BUFFER + 64)
        buffers.append(memory)
        buffer[0] = (ctypes.addressof(memory) + 63) // 64 * 64
        size[0], most[0] = _BUFFER, 0

    @_COMPLETE  # type: ignore[untyped-decorator]
    def complete(_context: Any, _stream: int, buffer: int, _size: int, valid: int) -> None:
        record = ctypes.c_void_p()
        while len(records) < _MAX_RECORDS and not cupti.cuptiActivityGetNextRecord(
            ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)
        ):
            head = ctypes.cast(record, ctypes.POINTER(_KernelRecord)).contents
            if head.kind == CONCURRENT_KERNEL:
                records.append([(head.name or b"?").decode(errors="replace"), head.start, head.end])
            elif head.kind in (MEMCPY, MEMSET):
                moved = ctypes.cast(record, ctypes.POINTER(_MemoryRecord)).contents
                records.append(["[memcpy]" if head.kind == MEMCPY else "[memset]", moved.start, moved.end])

    _check(cupti.cuptiActivityRegisterCallbacks(request, complete), "cuptiActivityRegisterCallbacks")
    kinds = (CONCURRENT_KERNEL, MEMCPY, MEMSET)
    for kind in kinds:
        _check(cupti.cuptiActivityEnable(kind), "cuptiActivityEnable")
    calls = []
    try:
        for _ in range(count):
            out = call()
            torch.cuda.synchronize()
            _check(cupti.cuptiActivityFlushAll(1), "cuptiActivityFlushAll")
            calls.append(list(records))
            records.clear()
            del out
    finally:
        for kind in kinds:
            cupti.cuptiActivityDisable(kind)
        cupti.cuptiActivityFlushAll(1)
        _KEEP.append((request, complete, buffers))  # CUPTI may still hold their addresses
    return calls


_KEEP: list[Any] = []


def _library() -> ctypes.CDLL:
    """The CUPTI that torch has loaded, or the toolkit's."""
    major = (torch.version.cuda or "13").split(".")[0]
    packages, toolkit = Path(torch.__file__).parent.parent / "nvidia", Path("/usr/local/cuda/extras/CUPTI/lib64")
    found = [*packages.glob(f"*/lib/libcupti.so.{major}*"), *toolkit.glob(f"libcupti.so.{major}*")]
    for name in (f"libcupti.so.{major}", *map(str, found)):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise TraceError(f"libcupti.so.{major} is not here")


def _check(code: int, what: str) -> None:
    if code:
        raise TraceError(f"{what} failed with CUPTI error {code}")
