"""ManualModel waits, whatever it is asked, and says for what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cudaforge.errors import Suspended
from cudaforge.llm.manual import ManualModel
from cudaforge.ports import ChatRequest


def test_waits_for_the_call_and_says_how_to_answer(question: Callable[..., ChatRequest]) -> None:
    with pytest.raises(Suspended) as raised:
        asyncio.run(ManualModel().complete(question(3)))
    assert raised.value.waiting_for == "r0123456789.3/coder/0"
    assert "coder waits" in raised.value.message
    assert "cudaforge pending" in raised.value.hint
    assert "cudaforge reply r0123456789 --file reply.md" in raised.value.hint


def test_costs_nothing(question: Callable[..., ChatRequest]) -> None:
    assert ManualModel().worst_case(question()).usd == 0.0
