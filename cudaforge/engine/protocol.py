"""How the supervisor and its child processes speak: framed JSON, lent memory, values as trees.

Runs inside untrusted processes too, so it imports the standard library and torch alone, and the supervisor takes
nothing that arrives here at its word: sizes are capped, and nothing is ever unpickled.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MAX_MESSAGE = 16 << 20
MAX_FDS = 64
ALIGN = 256
"""Tensors in a buffer start at multiples of this, as torch's own allocations do (it allows any vector load)."""


DIGESTED = 128
"""Elements at either end of a tensor that its digest looks at."""


class Closed(Exception):  # noqa: N818 - the peer is gone: not an error by itself
    """The other side has closed the channel."""


class Channel:
    """Length-prefixed JSON objects over a Unix stream socket, file descriptors beside them.

    `timeout` is in seconds for one whole message; TimeoutError when it passes. ValueError for a message that is
    too large or not a JSON object.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Sends one object, with at most MAX_FDS descriptors."""
        body = json.dumps(message).encode()
        if len(body) > MAX_MESSAGE:
            raise ValueError(f"message of {len(body)} bytes is larger than {MAX_MESSAGE}")
        header = struct.pack("!I", len(body))
        try:
            if fds:
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                self.sock.sendmsg([header], ancillary)
            else:
                self.sock.sendall(header)
            self.sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def recv(self, timeout: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """Waits for one object and the descriptors that came with it."""
        until = None if timeout is None else time.monotonic() + timeout
        self.sock.settimeout(timeout)
        fds = array.array("i")
        try:
            header, ancillary, _, _ = self.sock.recvmsg(4, socket.CMSG_SPACE(MAX_FDS * fds.itemsize))
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if not header:
                raise Closed
            header += self._exactly(4 - len(header), until)
            (size,) = struct.unpack("!I", header)
            if size > MAX_MESSAGE:
                raise ValueError(f"message of {size} bytes is larger than {MAX_MESSAGE}")
            message = json.loads(self._exactly(size, until))
        except ConnectionResetError:
            raise Closed from None
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(None)
        if not isinstance(message, dict):
            raise ValueError("message is not a JSON object")
        return message, list(fds)

    def readable(self, timeout: float) -> bool:
        """Whether something arrives within so many seconds; takes nothing."""
        return bool(select.select([self.sock], [], [], timeout)[0])

    def _exactly(self, size: int, until: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if until is not None:  # of the whole message, however slowly its bytes drip
                self.sock.settimeout(max(until - time.monotonic(), 1e-6))
            part = self.sock.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise Closed
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Closes the socket; the peer sees Closed."""
        self.sock.close()


# -- tensors in lent memory ------------------------------------------------------------------------------------


def sealed_memory(name: str, nbytes: int) -> int:
    """A file descriptor of shared memory whose size nobody can change: to shorten it would kill whoever reads it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, nbytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


@dataclass(frozen=True)
class Slot:
    """A tensor's place in a buffer: byte offset, dtype name (`float32`) and shape."""

    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * _itemsize(self.dtype)

    def wire(self) -> list[Any]:
        """As JSON."""
        return [self.offset, self.dtype, list(self.shape)]

    @classmethod
    def of(cls, wire: list[Any]) -> Slot:
        """From JSON."""
        return cls(int(wire[0]), str(wire[1]), tuple(int(n) for n in wire[2]))


Spec = tuple[str, tuple[int, ...]]
"""dtype name and shape."""


def spec_of(tensor: torch.Tensor) -> Spec:
    """dtype name and shape of a tensor."""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def digest_of(tensor: torch.Tensor) -> str:
    """Tells tensors of one spec apart by the values at their beginning and end."""
    import torch

    flat = tensor.detach().reshape(-1)
    ends = torch.cat([flat[:DIGESTED], flat[-DIGESTED:]]).cpu()
    return hashlib.sha256(bytes(ends.view(torch.uint8).tolist())).hexdigest()[:16]


def layout(specs: list[Spec], guard: int = 0) -> tuple[list[Slot], int]:
    """Places tensors one behind the other, `guard` bytes before, between and behind; returns slots and size."""
    slots, offset = [], _up(guard)
    for dtype, shape in specs:
        slot = Slot(offset, dtype, tuple(shape))
        slots.append(slot)
        offset = _up(offset + slot.nbytes + guard)
    return slots, max(offset, ALIGN)


def _up(offset: int) -> int:
    return (offset + ALIGN - 1) // ALIGN * ALIGN


def _itemsize(dtype: str) -> int:
    import torch

    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{dtype!r} is no dtype")
    return found.itemsize


def view(base: torch.Tensor, slot: Slot) -> torch.Tensor:
    """The tensor at `slot` of `base`, a uint8 tensor over a whole buffer. Shares memory."""
    import torch

    if slot.offset < 0 or slot.offset + slot.nbytes > base.numel():
        raise ValueError("slot lies outside its buffer")
    raw = base[slot.offset : slot.offset + slot.nbytes]
    return raw.view(getattr(torch, slot.dtype)).view(slot.shape)


def open_lent(wire: dict[str, Any], fd: int | None) -> torch.Tensor:
    """Opens a buffer that another process lends; a uint8 tensor over all of it."""
    import torch

    if wire["kind"] == "shm":
        assert fd is not None
        # All pages now: on the CPU the first call on an input set would be charged for them.
        mapped = mmap.mmap(fd, wire["bytes"], flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        os.close(fd)
        return torch.frombuffer(mapped, dtype=torch.uint8)
    return cuda_tensor(open_ipc(bytes.fromhex(wire["handle"])), wire["bytes"], wire["device"])


# -- CUDA runtime, by ctypes: torch offers no IPC for plain memory ---------------------------------------------


class IpcHandle(ctypes.Structure):
    """cudaIpcMemHandle_t: 64 opaque bytes, passed by value."""

    _fields_ = [("reserved", ctypes.c_char * 64)]


def cudart() -> ctypes.CDLL:
    """The CUDA runtime that torch has loaded."""
    import torch

    torch.cuda.init()
    major = (torch.version.cuda or "13").split(".")[0]
    return ctypes.CDLL(f"libcudart.so.{major}")


def cuda_check(code: int, what: str) -> None:
    """RuntimeError with the runtime's own words where `code` is not cudaSuccess."""
    if code:
        runtime = cudart()
        runtime.cudaGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"{what}: {runtime.cudaGetErrorString(code).decode()}")


def open_ipc(handle: bytes) -> int:
    """Maps the allocation behind an IPC handle; returns its device pointer."""
    wire = IpcHandle()
    ctypes.memmove(ctypes.byref(wire), handle, 64)
    pointer = ctypes.c_void_p()
    lazy_peer_access = 1
    cuda_check(cudart().cudaIpcOpenMemHandle(ctypes.byref(pointer), wire, lazy_peer_access), "cudaIpcOpenMemHandle")
    assert pointer.value is not None
    return pointer.value


class _DeviceMemory:
    """What torch reads to wrap device memory that is not its own."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (pointer, False), "version": 3}


def cuda_tensor(pointer: int, nbytes: int, device: str) -> torch.Tensor:
    """A uint8 tensor over device memory; whoever owns the memory keeps it alive."""
    import torch

    return torch.as_tensor(_DeviceMemory(pointer, nbytes), device=device)


# -- values as trees -------------------------------------------------------------------------------------------


def pack(value: Any, tensors: list[torch.Tensor]) -> Any:
    """A value as JSON; tensors are appended to `tensors` and stand as their index. TypeError for other things.

    A subclass of Tensor is no tensor: it may compute when it is looked at.
    """
    import torch

    if value is None or isinstance(value, bool | int | float | str):
        return value if not isinstance(value, str) else {"s": value}
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        tensors.append(value)
        return {"t": len(tensors) - 1}
    if isinstance(value, torch.dtype | torch.device):
        return {"torch": str(value)}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, tensors) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[pack(key, tensors), pack(item, tensors)] for key, item in value.items()]}
    raise TypeError(
        f"a {type(value).__module__}.{type(value).__qualname__} is not a tensor, number, string or container"
    )


def unpack(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """The value that `pack` made `tree` of, with `tensors` in place of indices."""
    import torch

    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "s":
        return content
    if kind == "t":
        return tensors[content]
    if kind == "torch":
        return getattr(torch, content.removeprefix("torch.")) if content.startswith("torch.") else torch.device(content)
    if kind == "dict":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """The leaves of a packed tree with their paths (`0`, `1.hidden`); tuple and list count as the same."""
    if isinstance(tree, dict):
        ((kind, content),) = tree.items()
        if kind in ("tuple", "list"):
            return [leaf for i, item in enumerate(content) for leaf in leaves(item, f"{path}.{i}".lstrip("."))]
        if kind == "dict":
            pairs = [(str(next(iter(key.values())) if isinstance(key, dict) else key), item) for key, item in content]
            return [leaf for key, item in pairs for leaf in leaves(item, f"{path}.{key}".lstrip("."))]
    return [(path or "output", tree)]


# -- answering ----------------------------------------------------------------------------------------


def serve(channel: Channel, handlers: dict[str, Any]) -> None:
    """Answers `{"do": name, ...}` with what `handlers[name](message, fds)` returns, until the channel closes.

    An exception becomes `{"error": {...}}` with type, message and frames, and the loop goes on.
    """
    import traceback

    while True:
        try:
            message, fds = channel.recv()
        except Closed:
            return
        try:
            reply = handlers[message["do"]](message, fds)
        except Exception as error:  # everything that untrusted code raises is an answer, not our failure
            frames = [[frame.filename, frame.lineno, frame.name] for frame in traceback.extract_tb(error.__traceback__)]
            if isinstance(error, SyntaxError) and error.filename:
                frames.append([error.filename, error.lineno or 0, "<module>"])
            text = str(error)
            reply = {"error": {"type": type(error).__name__, "message": text[:20_000], "frames": frames[-40:]}}
        # Else a long message would be freed when the next one has come: within the next batch, if that is what it asks.
        del message, fds
        channel.send(reply)
