"""OpenAIModel against a real server on loopback that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import AsyncGeneratorType
from typing import Any

import pytest
from support.fake_openai import Cut, Fail, FakeOpenAI, Garbage, Say, Slow, Step

from cudaforge.errors import ModelError, UsageError
from cudaforge.llm.openai import OpenAIModel
from cudaforge.ports import ChatReply, ChatRequest

Serve = Callable[..., FakeOpenAI]
Ask = Callable[..., OpenAIModel]
Question = Callable[..., ChatRequest]

PRICES = {"usd_per_million_input": 2.0, "usd_per_million_output": 10.0}


def complete(model: OpenAIModel, request: ChatRequest) -> ChatReply:
    return asyncio.run(model.complete(request))


def refusal(model: OpenAIModel, request: ChatRequest) -> ModelError:
    with pytest.raises(ModelError) as raised:
        complete(model, request)
    return raised.value


# -- a good server ------------------------------------------------------------------------------------------------


def test_asks_with_key_messages_and_settings(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["hello"])
    model = ask(server, temperature=0.2, max_output_tokens=500, reasoning_effort="low")
    assert complete(model, question()).text == "hello"
    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer sk-test-0123456789abcdef"
    assert request.body == {
        "model": "test-model",
        "messages": [
            {"role": "system", "content": "You write kernels."},
            {"role": "user", "content": "Write a kernel."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
        "max_completion_tokens": 500,
        "reasoning_effort": "low",
    }


def test_tells_the_server_nothing_about_this_machine(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["hello"])
    complete(ask(server), question())
    assert not [name for name in server.requests[0].headers if name.startswith("x-stainless")]


def test_takes_address_and_key_from_the_environment(
    serve: Serve, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(["hello"], key="sk-from-a-file")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-a-file\n")
    assert complete(OpenAIModel("m"), question()).text == "hello"


def test_does_not_send_loopback_through_a_proxy(
    serve: Serve, ask: Ask, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert complete(ask(serve(["hello"])), question()).text == "hello"


def test_says_which_model_answered_and_how_it_finished(serve: Serve, ask: Ask, question: Question) -> None:
    reply = complete(ask(serve([Say("half", finish_reason="length", model="test-model-2026")])), question())
    assert (reply.model, reply.finish_reason, reply.text) == ("test-model-2026", "length", "half")


def test_a_stream_without_done_is_whole_once_it_has_finished(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve([Say("hello", done=False)])
    assert complete(ask(server), question()).text == "hello"
    assert len(server.requests) == 1


# -- tokens and prices --------------------------------------------------------------------------------------------


def test_counts_as_the_server_does_and_prices_as_told(serve: Serve, ask: Ask, question: Question) -> None:
    counts = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    model = ask(serve([Say("hello", usage=counts)]), **PRICES, usd_per_million_cached=1.0)
    usage = complete(model, question()).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (1000, 100, 400)
    assert usage.usd == pytest.approx(600 * 2e-6 + 400 * 1e-6 + 100 * 10e-6)
    assert not usage.estimated


def test_reasoning_that_is_only_in_the_total_is_output(serve: Serve, ask: Ask, question: Question) -> None:
    counts = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}
    assert complete(ask(serve([Say("hello", usage=counts)])), question()).usage.output_tokens == 105


def test_unknown_price_is_said_to_be_unknown(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["hello"])
    model = ask(server)
    assert complete(model, question()).usage.usd is None
    assert model.worst_case(question()).usd is None


def test_known_price_bounds_the_worst_case() -> None:
    model = OpenAIModel("gpt-4o", api_key="k", max_output_tokens=1000)
    request = ChatRequest(key="k", role="coder", position=0, messages=())
    assert model.worst_case(request).usd == pytest.approx(1000 * 10e-6)


def test_missing_usage_is_estimated_and_says_so(serve: Serve, ask: Ask, question: Question) -> None:
    usage = complete(ask(serve([Say("hello " * 100, usage=None)]), **PRICES), question()).usage
    assert usage.estimated
    assert 100 <= usage.output_tokens <= 300
    assert usage.usd is not None
    assert usage.usd > 0


def test_cut_streams_are_paid_for(serve: Serve, ask: Ask, question: Question) -> None:
    once = complete(ask(serve(["hello"]), **PRICES), question()).usage
    twice = complete(ask(serve([Cut("x" * 3000), "hello"]), **PRICES), question()).usage
    assert twice.output_tokens == once.output_tokens + 1000
    assert twice.usd is not None
    assert once.usd is not None
    assert twice.usd > once.usd
    assert twice.estimated


# -- a server that another try can mend ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Fail(429, retry_after="0"),
        Fail(429),
        Fail(500),
        Fail(500, raw="<html>oops</html>"),
        Fail(502, raw=""),
        Fail(503, retry_after="nonsense"),
        Fail(504),
        Cut(),
        Cut(""),
        Cut(abruptly=False),
        Say("half", finish_reason=None),
        Garbage("{not json"),
        Garbage("null", ""),
        Garbage("[1, 2]"),
        Garbage('{"choices": 3}'),
        Garbage('{"choices": [1, {"delta": 3}]}'),
        Garbage('{"error": {"message": "overloaded", "code": 503}}'),
        Garbage('{"error": "overloaded"}'),
    ],
    ids=str,
)
def test_tries_again_and_never_shows_half_a_reply(step: Step, serve: Serve, ask: Ask, question: Question) -> None:
    server = serve([step, step, "whole"])
    assert complete(ask(server), question()).text == "whole"
    assert len(server.requests) == 3
    assert server.requests[0].body == server.requests[2].body


@pytest.mark.parametrize(
    "step",
    [
        Cut(),
        Cut(abruptly=False),
        Garbage("{not json"),
        Garbage('{"error": "overloaded"}'),
        Slow(10, "late"),
        Say("half", finish_reason=None),
    ],
    ids=str,
)
def test_a_failed_try_leaves_no_open_stream_to_the_garbage_collector(
    step: Step, serve: Serve, ask: Ask, question: Question
) -> None:
    def unfinished() -> set[str]:
        found = [o for o in gc.get_objects() if type(o) is AsyncGeneratorType]  # isinstance asks lazy modules, too
        return {f"{o.__qualname__} {id(o)}" for o in found}

    server = serve([step, "whole"])
    model, request = ask(server, first_byte_timeout_s=0.5), question()
    gc.collect()
    gc.disable()
    try:
        before = unfinished()
        assert complete(model, request).text == "whole"
        assert unfinished() <= before
    finally:
        gc.enable()


def test_tries_again_when_the_first_byte_is_slow(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve([Slow(10, "late"), "in time"])
    started = time.monotonic()
    assert complete(ask(server, first_byte_timeout_s=0.2), question()).text == "in time"
    assert time.monotonic() - started < 10


def test_waits_for_a_first_byte_that_is_slow_within_bounds(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve([Slow(0.2, "late")])
    assert complete(ask(server, first_byte_timeout_s=5), question()).text == "late"
    assert len(server.requests) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_waits_as_long_as_the_server_asks(form: str, serve: Serve, ask: Ask, question: Question) -> None:
    # A date has whole seconds, so that 2 s from now is between 1 and 2 s away.
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server = serve([Fail(429, retry_after="0.4" if form == "seconds" else soon), "hello"])
    started = time.monotonic()
    complete(ask(server), question())
    assert 0.3 < time.monotonic() - started < 15


def test_gives_up_after_the_retries_allowed(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve([Fail(500, "engine on fire")] * 9)
    err = refusal(ask(server, max_retries=2), question())
    assert len(server.requests) == 3
    assert "500: engine on fire (gave up after 3 tries)" in err.message
    assert err.hint


def test_gives_up_at_once_when_the_server_asks_for_more_time_than_there_is(
    serve: Serve, ask: Ask, question: Question
) -> None:
    server = serve([Fail(429, retry_after="3600")])
    started = time.monotonic()
    err = refusal(ask(server, total_timeout_s=5), question())
    assert time.monotonic() - started < 3
    assert "429" in err.message


def test_total_time_bounds_all_tries(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve([Slow(20)] * 9)
    started = time.monotonic()
    err = refusal(ask(server, total_timeout_s=0.5), question())
    assert time.monotonic() - started < 10
    assert "within 0.5 s" in err.message


def test_a_server_that_is_not_there_is_named(ask: Ask, question: Question) -> None:
    with FakeOpenAI() as gone:
        model = ask(gone, max_retries=1)
    err = refusal(model, question())
    assert f"{gone.url} cannot be reached" in err.message
    assert "OPENAI_BASE_URL" in err.hint


def test_stops_when_cancelled(serve: Serve, ask: Ask, question: Question) -> None:
    model = ask(serve([Slow(20)]))

    async def cancelled() -> None:
        task = asyncio.ensure_future(model.complete(question()))
        await asyncio.sleep(0.2)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


# -- a server that refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "sentence", "hint"),
    [
        (Fail(401, "Incorrect key sk-test-0123456789abcdef"), "refused the key.", "OPENAI_API_KEY"),
        (
            Fail(403, "No access for sk-test-0123456789abcdef"),
            "does not allow test-model: No access for ***.",
            "access",
        ),
        (Fail(404, "The model `test-model` does not exist.", "model_not_found"), "knows no model test-model", "name"),
        (Fail(404, raw="page not found"), "has no chat completions there: page not found.", "/v1"),
        (Fail(400, "Invalid value for temperature."), "(400): Invalid value for temperature.", "settings"),
        (Fail(400, "Too long", "context_length_exceeded"), "(400): Too long.", "longer context"),
        (Fail(402, "Pay"), "no quota", "Top it up"),
        (Fail(429, "You exceeded your quota", "insufficient_quota"), "no quota", "Top it up"),
        (Fail(400, "x" * 5000), "xxx [...].", "settings"),
        (Fail(400, raw="<html>sk-test-0123456789abcdef</html>"), "no reason given.", "settings"),
        (Fail(422, raw='{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}'), '"msg": "bad"', "settings"),
        (Garbage('{"error": {"message": "not for you", "code": 403}}'), "not for you.", ""),
    ],
    ids=lambda part: str(part)[:60],
)
def test_a_refusal_is_one_sentence_and_is_not_asked_again(
    step: Step, sentence: str, hint: str, serve: Serve, ask: Ask, question: Question
) -> None:
    server = serve([step, "never asked for"])
    err = refusal(ask(server), question())
    assert len(server.requests) == 1
    assert sentence in err.message
    assert hint in err.hint
    assert len(err.message) < 500


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_no_error_repeats_the_key(status: int, serve: Serve, ask: Ask, question: Question) -> None:
    key = "verysecret-0123456789"
    echo = Fail(status, f"the header was Bearer {key} and the key {key}, like sk-proj-abc***xyz")
    err = refusal(ask(serve([echo] * 9), api_key=key, max_retries=1), question())
    shown = f"{err.message} {err.hint} {err!r} {err.__cause__!r}"
    assert key not in shown
    assert "sk-proj" not in shown


def test_a_key_that_the_server_wants_and_nobody_set(serve: Serve, ask: Ask, question: Question) -> None:
    err = refusal(ask(serve(key="some"), api_key=""), question())
    assert "wants a key and none is set" in err.message


def test_an_unknown_model_is_named(serve: Serve, ask: Ask, question: Question) -> None:
    assert "knows no model test-model" in refusal(ask(serve(models=("other",))), question()).message


def test_openai_itself_is_not_asked_without_a_key() -> None:
    with pytest.raises(ModelError, match="needs a key and OPENAI_API_KEY is not set"):
        OpenAIModel("m")


@pytest.mark.parametrize("key", ["“sk-quoted”", "two\nlines"])
def test_a_key_that_no_header_can_hold_is_refused_unshown(key: str) -> None:
    with pytest.raises(ModelError) as raised:
        OpenAIModel("m", api_key=key)
    assert key not in raised.value.message


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "http://host:port/v1", "http://host:99999", "http://[::"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ModelError, match="not the address of a server"):
        OpenAIModel("m", base_url=url, api_key="k")


def test_unknown_settings_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="temprature") as raised:
        OpenAIModel("m", api_key="k", temprature=1)
    assert "temperature" in raised.value.hint


# -- a server that cannot do everything ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("can", "asked"),
    [
        ("json_schema", ["json_schema", "json_schema"]),
        ("json_object", ["json_schema", "json_object", "json_object"]),
        ("none", ["json_schema", "json_object", "none", "none"]),
    ],
)
def test_steps_down_to_the_structure_that_the_server_has_and_remembers(
    can: str, asked: list[str], serve: Serve, ask: Ask, question: Question
) -> None:
    server = serve(["{}", "{}"], structured=can)
    model = ask(server)
    for n in range(2):
        assert complete(model, question(n, structured=True)).text == "{}"
    assert [r.body.get("response_format", {}).get("type", "none") for r in server.requests] == asked


def test_asks_for_the_schema_by_name(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["{}"])
    request = question(structured=True)
    complete(ask(server), request)
    asked = server.requests[0].body["response_format"]["json_schema"]
    assert asked == {"name": "judge_reply", "strict": True, "schema": request.json_schema}


def test_asks_again_without_stream_options_and_remembers(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["one", "two"], stream_options=False)
    model = ask(server)
    assert complete(model, question(0)).usage.estimated
    assert complete(model, question(1)).text == "two"
    assert ["stream_options" in r.body for r in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("caps", "asked"),
    [(("max_tokens",), ["max_completion_tokens", "max_tokens"]), ((), ["max_completion_tokens", "max_tokens", None])],
)
def test_finds_the_name_under_which_output_is_capped(
    caps: tuple[str, ...], asked: list[str | None], serve: Serve, ask: Ask, question: Question
) -> None:
    server = serve(["hello"], caps=caps)
    complete(ask(server), question())

    def cap(body: dict[str, Any]) -> str | None:
        return next((name for name in body if name.startswith("max_")), None)

    assert [cap(r.body) for r in server.requests] == asked


def test_a_cap_that_the_user_set_is_not_dropped(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["never asked for"], caps=())
    err = refusal(ask(server, max_output_tokens=100), question())
    assert "max_tokens" in err.message
    assert len(server.requests) == 2


def test_a_server_that_can_do_nothing_still_answers(serve: Serve, ask: Ask, question: Question) -> None:
    server = serve(["plain"], structured="none", stream_options=False, caps=())
    assert complete(ask(server), question(structured=True)).text == "plain"
    assert set(server.requests[-1].body) == {"model", "messages", "stream"}


# -- start-up -----------------------------------------------------------------------------------------------------


def test_import_and_construction_load_no_client() -> None:
    code = (
        "import sys; from cudaforge.llm.openai import OpenAIModel; OpenAIModel('m', api_key='k');"
        "print([m for m in ('openai', 'httpx2', 'genai_prices', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
