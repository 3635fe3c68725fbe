"""Coder and Judge: prompts out of what is known, validated replies out of what a model says."""

from __future__ import annotations

from collections.abc import Sequence

from cudaforge.errors import ReplyError
from cudaforge.trace import Message
from cudaforge_prompts import clip, render

MAX_REPLY = 60_000
"""Characters of an unusable reply that are sent back."""


def reask(messages: Sequence[Message], reply_text: str, error: ReplyError | str) -> tuple[Message, ...]:
    """The conversation that asks once more after a reply that could not be parsed."""
    message, hint = (error.message, error.hint) if isinstance(error, ReplyError) else (error, "")
    reply = reply_text.encode("utf-8", "replace").decode("utf-8")
    return (
        *messages,
        # Servers refuse an empty message of the assistant.
        Message(role="assistant", content=clip(reply, MAX_REPLY) if reply.strip() else "(empty reply)"),
        Message(role="user", content=render("reask", error=message, hint=hint)),
    )
