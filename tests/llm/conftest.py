"""A server on loopback, a model that asks it without waiting between tries, and a question."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fake_openai import FakeOpenAI

from cudaforge.llm.openai import OpenAIModel
from cudaforge.ports import ChatRequest
from cudaforge.trace import Message, Role

KEY = "sk-test-0123456789abcdef"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see neither keys nor servers of whoever runs them."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeOpenAI]]:
    """Starts FakeOpenAI servers that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(FakeOpenAI(*args, **kwargs))


@pytest.fixture
def ask() -> Callable[..., OpenAIModel]:
    """A model `test-model` at a server, with short waits."""

    def build(server: FakeOpenAI, *, api_key: str = KEY, **settings: Any) -> OpenAIModel:
        quick = {"backoff_first_s": 0.001, "backoff_max_s": 0.004, "total_timeout_s": 30.0}
        return OpenAIModel("test-model", base_url=server.url, api_key=api_key, **{**quick, **settings})

    return build


@pytest.fixture
def question() -> Callable[..., ChatRequest]:
    """A question of the Coder, or of the Judge with a schema."""

    def build(position: int = 0, *, structured: bool = False, text: str = "Write a kernel.") -> ChatRequest:
        role = Role.JUDGE if structured else Role.CODER
        return ChatRequest(
            key=f"r0123456789.{position}/{role.value}/0",
            role=role,
            position=position,
            messages=(Message(role="system", content="You write kernels."), Message(role="user", content=text)),
            json_schema=SCHEMA if structured else None,
        )

    return build
