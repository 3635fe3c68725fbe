"""What every ChatModel keeps to, whichever stands behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fake_openai import FakeOpenAI

from cudaforge.errors import ModelError, Suspended
from cudaforge.llm.manual import ManualModel
from cudaforge.llm.openai import OpenAIModel
from cudaforge.llm.recorded import RecordedModel
from cudaforge.ports import ChatModel, ChatReply, ChatRequest

Question = Callable[..., ChatRequest]
REPLIES = 3
"""Each model under test has this many replies, `reply N` to `question N`."""


@pytest.fixture(params=["openai", "recorded", "manual"])
def model(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    serve: Callable[..., FakeOpenAI],
    ask: Callable[..., OpenAIModel],
) -> ChatModel:
    if request.param == "manual":
        return ManualModel()
    if request.param == "recorded":
        (tmp_path / "recording.toml").write_text(
            'title = "t"\nmade_by = "m"\nnote = "n"\nlanguage = "cpp"\n', encoding="utf-8"
        )
        for n in range(REPLIES):
            for role in ("coder", "judge"):
                (tmp_path / f"{role}-{n:02d}.md").write_text(f"reply {n}", encoding="utf-8")
        return RecordedModel(tmp_path)

    def answer(body: dict[str, list[dict[str, str]]]) -> str:
        n = int(body["messages"][-1]["content"].removeprefix("question "))
        if n >= REPLIES:
            raise AssertionError("a model was asked for a reply that it does not have")
        return f"reply {n}"

    return ask(serve(answer, key="sk-test-0123456789abcdef"))


def outcome(model: ChatModel, request: ChatRequest) -> ChatReply | Suspended:
    try:
        return asyncio.run(model.complete(request))
    except Suspended as waits:
        return waits


def test_name_is_provider_and_name(model: ChatModel) -> None:
    provider, colon, _ = model.name.partition(":")
    assert provider in ("openai", "recorded", "manual")
    assert colon


@pytest.mark.parametrize("structured", [False, True])
def test_answers_whole_or_waits_for_this_very_call(model: ChatModel, question: Question, structured: bool) -> None:
    request = question(1, structured=structured, text="question 1")
    said = outcome(model, request)
    if isinstance(said, Suspended):
        assert said.waiting_for == request.key
        assert "cudaforge reply r0123456789 --file reply.md" in said.hint
        return
    assert said.text == "reply 1"
    assert said.finish_reason == "stop"
    assert said.model
    assert said.latency_s >= 0


def test_answers_in_one_event_loop_after_another(model: ChatModel, question: Question) -> None:
    said = [outcome(model, question(n, text=f"question {n}")) for n in range(REPLIES)]
    if not isinstance(model, ManualModel):
        assert [reply.text for reply in said if isinstance(reply, ChatReply)] == ["reply 0", "reply 1", "reply 2"]


def test_keeps_parallel_calls_apart(model: ChatModel, question: Question) -> None:
    async def together() -> list[ChatReply | BaseException]:
        calls = (model.complete(question(n, text=f"question {n}")) for n in range(REPLIES))
        return await asyncio.gather(*calls, return_exceptions=True)

    for n, said in enumerate(asyncio.run(together())):
        if isinstance(said, Suspended):
            assert said.waiting_for == question(n).key
        else:
            assert isinstance(said, ChatReply)
            assert said.text == f"reply {n}"


def test_worst_case_is_not_exceeded(model: ChatModel, question: Question) -> None:
    request = question(0, text="question 0")
    worst = model.worst_case(request)
    assert worst == model.worst_case(request)
    said = outcome(model, request)
    if isinstance(said, ChatReply):
        assert said.usage.output_tokens <= worst.output_tokens
        if said.usage.usd is not None:
            assert worst.usd is not None
            assert said.usage.usd <= worst.usd


def test_longer_questions_do_not_cost_less(model: ChatModel, question: Question) -> None:
    short, long = model.worst_case(question(text="short")), model.worst_case(question(text="long " * 1000))
    assert long.input_tokens >= short.input_tokens


@pytest.mark.parametrize("kind", ["openai", "recorded"])
def test_what_cannot_be_answered_is_one_sentence_and_a_hint(
    kind: str, tmp_path: Path, serve: Callable[..., FakeOpenAI], ask: Callable[..., OpenAIModel], question: Question
) -> None:
    failing: ChatModel
    if kind == "openai":
        failing = ask(serve(key="another"))
    else:
        (tmp_path / "recording.toml").write_text('title = "t"\nmade_by = "m"\nnote = "n"\nlanguage = "cpp"\n')
        failing = RecordedModel(tmp_path)
    with pytest.raises(ModelError) as raised:
        asyncio.run(failing.complete(question()))
    assert raised.value.message.endswith(".")
    assert "\n" not in raised.value.message
    assert raised.value.hint
