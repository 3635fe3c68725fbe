"""Reading replies: fenced blocks and JSON out of whatever a model wrote around them. Linear in the text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
THINKING = re.compile(r"<(?P<end>/?)think(?:ing)?>", re.IGNORECASE)
MAX_JSON_STARTS = 500
"""Opening braces that are tried: a reply with more is not an answer in JSON."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    info: str
    """What follows the opening fence: `cuda kernel.cu`."""
    before: tuple[str, ...]
    """Up to three lines of prose before it, nearest first, without empty ones."""
    text: str
    closed: bool
    """False where the reply ends, or another block begins, before its closing fence."""


def normalize(text: str) -> str:
    """Newlines as newlines, no byte-order mark, nothing that has no UTF-8, and no thinking sections."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    return _without_thinking(text.encode("utf-8", "replace").decode("utf-8"))


def _without_thinking(text: str) -> str:
    """Drops `<think>...</think>`; everything before a `</think>` whose opening tag the server swallowed, too.

    A section that never ends stays: it may hold the answer of a model that forgot to close it.
    """
    kept: list[str] = []
    position, opened = 0, None
    for tag in THINKING.finditer(text):
        if not tag["end"]:
            if opened is None:
                opened = tag.start()
                kept.append(text[position:opened])
                position = opened
        else:
            if opened is None:
                kept.clear()
            position, opened = tag.end(), None
    return "".join(kept) + text[position:]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of `text` in order. Expects normalised text.

    A fence with an info string always opens a block, also inside an unclosed one (models forget the closing
    fence); fences shorter than the one that opened a block are its content.
    """
    found: list[Block] = []
    prose: list[str] = []
    current: list[str] = []
    opening: re.Match[str] | None = None

    def finish(closed: bool) -> None:
        if opening is not None:
            indent = opening["indent"]
            body = [line.removeprefix(indent) for line in current]
            before = tuple(line for line in reversed(prose) if line.strip())[:3]
            found.append(Block(opening["info"].strip(), before, "\n".join(body) + "\n", closed))
        prose.clear()
        current.clear()

    for line in text.split("\n"):
        fence = FENCE.match(line)
        if opening is None:
            if fence:
                opening = fence
            else:
                prose.append(line)
        elif fence and fence["ticks"].startswith(opening["ticks"]):
            if fence["info"].strip():
                finish(closed=False)
                opening = fence
            else:
                finish(closed=True)
                opening = None
        else:
            current.append(line)
    if opening is not None:
        finish(closed=False)
    return found


def json_object(text: str, keys: set[str]) -> dict[str, Any] | None:
    """The last JSON object in normalised `text` that has one of `keys` (written as `key_form` writes them).

    Falls back to the last object of any kind; None where there is none.
    """
    decoder = json.JSONDecoder(strict=False)  # models put real newlines into strings
    best: dict[str, Any] | None = None
    fallback: dict[str, Any] | None = None
    position = text.find("{")
    for _ in range(MAX_JSON_STARTS):
        if position < 0:
            break
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            fallback = value
            if keys & {key_form(key) for key in value}:
                best = value
        position = text.find("{", end)
    return best if best is not None else fallback


def key_form(key: str) -> str:
    """One spelling of a key: `Optimization Method` -> `optimisation_method`."""
    return re.sub(r"[\s\-]+", "_", key.strip().lower()).replace("optimization", "optimisation")
