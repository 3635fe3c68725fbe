"""Lent memory: layout, guards, poison, and what travels over the channel."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
import torch

from cudaforge.engine.memory import GUARD, Buffer
from cudaforge.engine.protocol import Channel, Closed, Slot, layout, leaves, open_lent, pack, unpack, view


def test_what_a_borrower_writes_is_what_the_owner_reads() -> None:
    buffer = Buffer([("float32", (3, 5)), ("int64", (7,))], "cpu", guard=GUARD)
    buffer.poison()
    wire, fd = buffer.lend()
    assert fd is not None
    base = open_lent(wire, os.dup(fd))
    view(base, buffer.slots[0]).copy_(torch.arange(15.0).view(3, 5))
    assert torch.equal(buffer.tensor(0), torch.arange(15.0).view(3, 5))
    assert bool((buffer.tensor(1) == -1).all()), "unwritten integers stay poisoned"
    assert buffer.guards_intact()
    base[buffer.slots[0].offset - 1] = 0
    assert not buffer.guards_intact()
    buffer.close()


def test_lent_memory_keeps_its_size() -> None:
    """To shorten it would kill whoever reads it next."""
    buffer = Buffer([("float32", (1024,))], "cpu")
    wire, fd = buffer.lend()
    assert fd is not None
    for size in (0, 2 * wire["bytes"]):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    buffer.close()


def test_a_message_that_drips_is_late(pair_of_sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair_of_sockets
    stop = threading.Event()

    def drip() -> None:
        theirs.sendall(b"\0\0\1\0")
        while not stop.wait(0.05):
            theirs.sendall(b" ")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimeoutError):
            Channel(ours).recv(0.5)
    finally:
        stop.set()
        dripping.join()


@pytest.fixture
def pair_of_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_poison_is_nan_in_every_float_format() -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        buffer = Buffer([(dtype, (4,))], "cpu")
        buffer.poison()
        assert bool(torch.isnan(buffer.tensor(0)).all()), dtype
        buffer.close()


def test_poison_and_guards_of_the_first_slots_alone() -> None:
    buffer = Buffer([("float32", (10,))] * 4, "cpu", guard=GUARD)
    buffer.poison(2)
    assert buffer.guards_intact(2) and bool(torch.isnan(buffer.tensor(1)).all())
    buffer.tensor(1).fill_(1.0)
    assert buffer.guards_intact(2), "what lies in a slot is not guarded"
    buffer.base[buffer.slots[1].offset + buffer.slots[1].nbytes] = 0
    assert not buffer.guards_intact(2)
    assert bytes(buffer.raw(1).tolist()) == bytes(buffer.tensor(1).view(torch.uint8).tolist())
    buffer.close()


def test_slots_are_aligned_and_apart() -> None:
    slots, size = layout([("float32", (3,)), ("bool", (1,)), ("float64", ())], guard=100)
    edge = 100
    for slot in slots:
        assert slot.offset % 256 == 0 and slot.offset >= edge
        edge = slot.offset + slot.nbytes + 100
    assert size >= edge


def test_a_slot_outside_its_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        view(torch.zeros(16, dtype=torch.uint8), Slot(8, "float32", (3,)))


def test_values_travel_as_trees_and_come_back() -> None:
    value = [torch.ones(2), 3, None, True, "s", (1.5, {"a": torch.zeros(1)}), torch.float16]
    tensors: list[torch.Tensor] = []
    tree = pack(value, tensors)
    back = unpack(tree, tensors)
    assert back[1:5] == [3, None, True, "s"] and back[5][1]["a"] is tensors[1] and back[6] is torch.float16
    assert [name for name, _ in leaves(tree)] == ["0", "1", "2", "3", "4", "5.0", "5.1.a", "6"]


def test_a_tensor_subclass_is_no_tensor() -> None:
    class Lazy(torch.Tensor):
        pass

    with pytest.raises(TypeError, match="Lazy"):
        pack(torch.ones(1).as_subclass(Lazy), [])


def test_the_channel_carries_objects_descriptors_and_limits() -> None:
    ours, theirs = (Channel(s) for s in socket.socketpair())
    read, write = os.pipe()
    threading.Thread(target=ours.send, args=({"big": "x" * 300_000}, [write])).start()
    message, fds = theirs.recv(5)
    assert len(message["big"]) == 300_000
    os.write(fds[0], b"!")
    assert os.read(read, 1) == b"!"
    for fd in (read, write, *fds):
        os.close(fd)
    with pytest.raises(TimeoutError):
        theirs.recv(0.05)
    theirs.sock.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="larger"):
        ours.recv(5)
    theirs.close()
    ours.close()


def test_a_closed_peer_is_said() -> None:
    ours, theirs = (Channel(s) for s in socket.socketpair())
    theirs.close()
    with pytest.raises(Closed):
        ours.recv(1)
    ours.close()


def test_a_buffer_of_which_nothing_is_used_is_intact() -> None:
    """Of a task without inputs."""
    buffer = Buffer([], "cpu", guard=256)
    buffer.poison(0)
    assert buffer.guards_intact(0)
    buffer.close()
