"""A real OpenAI-compatible server on loopback that misbehaves where a script says so.

In a test:

    from support.fake_openai import Cut, Fail, FakeOpenAI, Say, by_model

    with FakeOpenAI([Fail(429, retry_after="0"), "the reply"]) as server:    # a list: one step per request
        model = OpenAIModel("m", base_url=server.url, api_key="k")
        ...
        assert len(server.requests) == 2

    with FakeOpenAI(lambda body: "reply to " + body["messages"][-1]["content"]) as server:    # or a callable
        ...

    # Coder and Judge under two model names, each with its replies in order:
    with FakeOpenAI(by_model({"coder": ["draft", "repair"], "judge": ["{...}"]})) as server:
        # cudaforge optimize --coder openai:coder --judge openai:judge
        #     with OPENAI_BASE_URL=server.url and OPENAI_API_KEY=anything
        ...

As a fixture (in the conftest.py of the tests that want it):

    @pytest.fixture
    def serve() -> Iterator[Callable[..., FakeOpenAI]]:
        with contextlib.ExitStack() as stack:
            yield lambda *args, **kwargs: stack.enter_context(FakeOpenAI(*args, **kwargs))

A step is a string (said well), or Say, Fail, Cut, Garbage, Slow. What the server cannot do at all (`structured`,
`stream_options`, `caps`, `models`, `key`) is checked before the script, so that a refused request uses up no step.
A script that has ended answers 400, which no client tries again.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Say:
    """A whole reply, in pieces. `usage` and `finish_reason` None: the server leaves them out."""

    text: str
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    )
    finish_reason: str | None = "stop"
    model: str | None = None
    """The name under which the server answers; None: the one it was asked for."""
    done: bool = True
    """Ends with `data: [DONE]`."""


@dataclass(frozen=True)
class Fail:
    """An error before any reply."""

    status: int
    message: str = "scripted failure"
    code: str | None = None
    retry_after: str | None = None
    raw: str | None = None
    """The body as it is, in place of OpenAI's JSON."""


@dataclass(frozen=True)
class Cut:
    """A stream that ends before the reply does: `abruptly` by a broken connection, else as if all were well."""

    text: str = "half a rep"
    abruptly: bool = True


@dataclass(frozen=True)
class Garbage:
    """An event that is not what it should be, after a piece of text."""

    data: str = "{not json"
    text: str = "half a rep"


@dataclass(frozen=True)
class Slow:
    """Silence before the first byte, then the step."""

    seconds: float
    then: Say | Fail | str = "late"


Step = str | Say | Fail | Cut | Garbage | Slow
Script = Iterable[Step] | Callable[[dict[str, Any]], Step]


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]


def by_model(replies: dict[str, list[Step]]) -> Callable[[dict[str, Any]], Step]:
    """Answers the n-th request to each model name with that model's n-th step."""
    waiting = {model: iter(steps) for model, steps in replies.items()}

    def answer(body: dict[str, Any]) -> Step:
        return next(waiting[body["model"]], _ENDED)

    return answer


_ENDED = Fail(400, "the script of this test server has ended")


class FakeOpenAI:
    """The server; a context manager. `url` is what goes into OPENAI_BASE_URL, `requests` what came in, in order."""

    def __init__(
        self,
        script: Script = (),
        *,
        structured: str = "json_schema",
        stream_options: bool = True,
        caps: tuple[str, ...] = ("max_completion_tokens", "max_tokens"),
        models: tuple[str, ...] | None = None,
        key: str | None = None,
    ) -> None:
        """
        Args:
            structured: the most that response_format may ask for: `json_schema`, `json_object` or `none`.
            stream_options: whether `stream_options` is understood.
            caps: names under which a cap on output tokens is understood.
            models: names that are known; None: all.
            key: the only key that is let in; None: any or none.
        """
        self.requests: list[Request] = []
        self._script = script if callable(script) else iter(script)
        self._structured, self._stream_options, self._caps = structured, stream_options, caps
        self._models, self._key = models, key
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False  # joined by server_close: no thread outlives its test
        # The poll interval is what leaving the context waits for.
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def step(self, request: Request) -> Step:
        """What this request is answered with."""
        with self._lock:
            self.requests.append(request)
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            if callable(self._script):
                return self._script(request.body)
            return next(self._script, _ENDED)

    def _refusal(self, request: Request) -> Fail | None:
        body = request.body
        if request.path != "/v1/chat/completions":
            return Fail(404, raw="not found")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is not None and given != self._key:
            # Real servers echo the key, or most of it.
            return Fail(401, f"Incorrect API key provided: {given}.", "invalid_api_key")
        if self._models is not None and body["model"] not in self._models:
            return Fail(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        if "stream_options" in body and not self._stream_options:
            return Fail(400, "Unrecognized request argument supplied: stream_options")
        for cap in ("max_completion_tokens", "max_tokens"):
            if cap in body and cap not in self._caps:
                return Fail(400, f"Unsupported parameter: '{cap}' is not supported with this model.")
        wanted = body.get("response_format", {}).get("type", "none")
        order = ("none", "json_object", "json_schema")
        if order.index(wanted) > order.index(self._structured):
            return Fail(400, f"'response_format.type' {wanted} is not supported by this server")
        return None


def _handler(fake: FakeOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with contextlib.suppress(ConnectionError):  # the client has left, as one with a timeout does
                self._answer(fake.step(Request(self.path, headers, body)), body)
            self.close_connection = True

        def _answer(self, step: Step, body: dict[str, Any]) -> None:
            if isinstance(step, Slow):
                fake.closing.wait(step.seconds)
                step = step.then
            if isinstance(step, str):
                step = Say(step)
            if isinstance(step, Fail):
                self._fail(step)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            self._write(": a comment, as some servers send to keep the connection alive\n\n")
            for piece in (step.text[:3], step.text[3:]):
                self._event(_chunk(body, {"role": "assistant", "content": piece}))
            if isinstance(step, Garbage):
                self._write(f"data: {step.data}\n\n")
            if isinstance(step, Say):
                self._finish(step, body)
            if not (isinstance(step, Cut) and step.abruptly):
                self._write("")  # the chunk of length 0 that ends a body; without it the connection counts as broken

        def _finish(self, step: Say, body: dict[str, Any]) -> None:
            name = step.model or body["model"]
            self._event(_chunk(body, {}, step.finish_reason, name))
            if step.usage is not None and body.get("stream_options", {}).get("include_usage"):
                self._event({**_chunk(body, {}, model=name), "choices": [], "usage": step.usage})
            if step.done:
                self._write("data: [DONE]\n\n")

        def _fail(self, step: Fail) -> None:
            error = {"message": step.message, "type": "scripted", "param": None, "code": step.code}
            data = (json.dumps({"error": error}) if step.raw is None else step.raw).encode()
            self.send_response(step.status)
            if step.retry_after is not None:
                self.send_header("Retry-After", step.retry_after)
            self.send_header("Content-Type", "application/json" if step.raw is None else "text/plain")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        def _event(self, data: dict[str, Any]) -> None:
            self._write(f"data: {json.dumps(data)}\n\n")

        def _write(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    return Handler


def _chunk(
    body: dict[str, Any], delta: dict[str, str], finish_reason: str | None = None, model: str | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": model or body["model"],
        "choices": [choice],
    }
