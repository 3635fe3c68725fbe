"""The loop of a child: what it is asked, what it answers, what it keeps."""

from __future__ import annotations

import weakref
from typing import Any

from cudaforge.engine.protocol import Closed, serve


class Lived(list[int]):
    """A part of a message whose end can be seen."""


class Told:
    """A channel with messages at hand; notes what was answered and what was still alive then."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.parts: list[weakref.ref[Lived]] = []
        self.replies: list[dict[str, Any]] = []
        self.alive: list[int] = []

    def recv(self) -> tuple[dict[str, Any], list[int]]:
        if not self.messages:
            raise Closed
        part = Lived([1])
        self.parts.append(weakref.ref(part))
        return {**self.messages.pop(0), "part": part}, []

    def send(self, reply: dict[str, Any]) -> None:
        self.replies.append(reply)
        self.alive.append(sum(part() is not None for part in self.parts))


def _broken(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    raise ValueError("no")


def test_a_message_is_gone_before_its_answer_is_sent() -> None:
    """What is freed later is freed while the next batch is timed."""
    channel: Any = Told({"do": "well"}, {"do": "badly"}, {"do": "well"})
    serve(channel, {"well": lambda message, fds: {"is": "well"}, "badly": _broken})
    assert [reply.get("is") or reply["error"]["type"] for reply in channel.replies] == ["well", "ValueError", "well"]
    assert channel.alive == [0, 0, 0]
