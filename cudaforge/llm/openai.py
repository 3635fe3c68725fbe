"""`openai:MODEL`: asks any server that speaks OpenAI's chat completions.

Always streamed, so that a silent server is told from a slow model. A reply counts only when the server has said how
it finished; everything else that another try can mend is tried again here (the client's own retries are off: they do
not see cut streams). What a server refuses of the optional parts of a request, it is not asked for again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from cudaforge.errors import ModelError
from cudaforge.llm.prices import estimate_tokens, most_tokens, priced
from cudaforge.llm.settings import KEY_VARIABLE, OPENAI_URL, URL_VARIABLE, OpenAISettings, is_server, public_url
from cudaforge.ports import ChatReply, ChatRequest
from cudaforge.trace import Usage, total_usage

if TYPE_CHECKING:  # importing the client takes half a second; complete() does it
    import httpx2
    import openai

    from cudaforge.llm.faults import Asked

_T = TypeVar("_T")

log = logging.getLogger(__name__)

_OPTIONAL = {
    "stream_options": ("stream_options", "include_usage"),
    "json_schema": ("response_format", "json_schema", "structured", "grammar", "guided"),
    "json_object": ("response_format", "json_object", "structured", "grammar", "guided"),
    "max_completion_tokens": ("max_completion_tokens", "max_tokens", "completion token", "in the completion"),
    "max_tokens": ("max_tokens", "completion token", "in the completion"),
}
"""Parts of a request that a server may refuse, and the words by which its 400 tells which one it was."""


class OpenAIModel:
    """A model behind an OpenAI-compatible server."""

    def __init__(self, model: str, *, base_url: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Takes address and key from OPENAI_BASE_URL and OPENAI_API_KEY where they are not given; asks nothing yet.

        Args:
            settings: fields of OpenAISettings.

        Raises:
            UsageError: a setting is unknown or out of range.
            ModelError: there is no usable key. Servers other than OpenAI's are asked without one.
        """
        self.model = model
        self.settings = OpenAISettings.parse(settings)
        self.base_url = (base_url or os.environ.get(URL_VARIABLE, "")).strip() or OPENAI_URL
        # Stripped, as a key read from a file ends in a newline, which no header may hold.
        self._key = (os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key).strip()
        if not self._key and self.base_url == OPENAI_URL:
            raise ModelError(
                f"{self.name} needs a key and {KEY_VARIABLE} is not set.",
                f"Set {KEY_VARIABLE}, or {URL_VARIABLE} for another server; `cudaforge doctor` shows what is there.",
            )
        if not (self._key.isascii() and self._key.isprintable()):
            raise ModelError(f"{KEY_VARIABLE} holds characters that no key has.", "Set it again, without quotes.")
        if not is_server(self.base_url):
            raise ModelError(
                f"{public_url(self.base_url)} is not the address of a server.", f"Set {URL_VARIABLE} to an http(s) URL."
            )
        self._refused: set[str] = set()
        """Keys of _OPTIONAL that this server is not asked for again."""

    @property
    def name(self) -> str:
        return f"openai:{self.model}"

    def worst_case(self, request: ChatRequest) -> Usage:
        """Every byte of the prompt a token, and the longest reply allowed; for one request, without retries."""
        prompt = most_tokens(m.content for m in request.messages)
        if request.json_schema is not None:
            prompt += most_tokens([repr(request.json_schema)])
        return self._usage(prompt, self.settings.max_output_tokens, estimated=True)

    async def complete(self, request: ChatRequest) -> ChatReply:
        from cudaforge.llm.faults import Asked

        asked = Asked(self.model, self.base_url, self._key)
        try:
            # A client for each call: its connections belong to one event loop, which may end with the call.
            async with asyncio.timeout(self.settings.total_timeout_s) as limit, self._client() as client:
                return await self._persist(client, request, asked, limit)
        except TimeoutError:
            raise ModelError(
                f"{asked.server} gave no whole reply within {self.settings.total_timeout_s:g} s.",
                "Try again later, or allow more with total_timeout_s.",
            ) from None

    async def _persist(
        self, client: openai.AsyncOpenAI, request: ChatRequest, asked: Asked, limit: asyncio.Timeout
    ) -> ChatReply:
        """Tries until there is a reply, a refusal, or no more try."""
        import httpx2
        import openai

        from cudaforge.llm.faults import CutStream, speaks_of

        tries = 0
        lost: list[Usage] = []
        while True:
            body = self._body(request)
            try:
                reply = await self._ask(client, body, request)
                return reply.model_copy(update={"usage": total_usage([reply.usage, *lost])})
            except (openai.APIError, httpx2.RequestError, CutStream) as err:
                fault = asked.fault(err)
                if isinstance(err, openai.APIStatusError) and err.status_code in (400, 422, 501):
                    refused = next((p for p in self._parts(body) if speaks_of(err, _OPTIONAL[p])), None)
                    if refused is not None:
                        log.info("%s: asked again without %s: %s", self.name, refused, fault.sentence)
                        self._refused.add(refused)
                        continue
                if isinstance(err, CutStream) and err.text:
                    # The server has charged, or will, for what it had said.
                    lost.append(self._estimate(request, err.text))

            # Outside of the except clause: no traceback leads back to a request with its headers.
            if not fault.retry:
                raise fault.error()
            tries += 1
            wait = self._wait(tries, fault.wait_s)
            left = (limit.when() or 0.0) - asyncio.get_running_loop().time()
            if tries > self.settings.max_retries or wait >= left:
                why = f"gave up after {tries} {'try' if tries == 1 else 'tries'}"
                if tries <= self.settings.max_retries:
                    why += f", as the next may come in {wait:.0f} s only"
                raise ModelError(
                    f"{fault.sentence} ({why}).",
                    fault.hint or "Nothing is lost: resume the run when the server is back.",
                )
            log.info("%s: try %d failed, next in %.1f s: %s", self.name, tries, wait, fault.sentence)
            await asyncio.sleep(wait)

    async def _ask(self, client: openai.AsyncOpenAI, body: dict[str, Any], request: ChatRequest) -> ChatReply:
        """One try. Raises what the client raises before the stream begins, CutStream after."""
        import httpx2
        import openai

        from cudaforge.llm.faults import CutStream

        started = time.monotonic()
        text: list[str] = []
        finish, model, usage = "", self.model, None
        cause: Exception | None = None
        stream = await client.chat.completions.create(**body)
        try:
            async for chunk in stream:
                model = _get(chunk, "model", str) or model
                usage = getattr(chunk, "usage", None) or usage
                for choice in _get(chunk, "choices", list) or ():
                    finish = _get(choice, "finish_reason", str) or finish
                    delta = getattr(choice, "delta", None)
                    text.append(_get(delta, "content", str) or _get(delta, "refusal", str) or "")
        except (openai.APIError, httpx2.RequestError, ValueError) as err:  # ValueError: not JSON, not UTF-8
            cause = _without_frames(err)
        finally:
            await stream.close()
        said = "".join(text)
        if not finish:
            raise CutStream(said, cause)
        # What fails after the finish reason only loses the count of tokens: the reply itself is whole.
        return ChatReply(
            text=said,
            model=model,
            usage=self._reported(usage) or self._estimate(request, said),
            latency_s=time.monotonic() - started,
            finish_reason=finish,
        )

    def _client(self) -> openai.AsyncOpenAI:
        import openai

        settings = self.settings
        host = urlsplit(self.base_url).hostname or ""
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # the client insists on one
            max_retries=0,
            timeout=openai.Timeout(settings.first_byte_timeout_s, connect=settings.connect_timeout_s),
            http_client=openai.DefaultAsyncHttpxClient(
                # A proxy from the environment is not for servers of this machine.
                trust_env=host not in ("localhost", "127.0.0.1", "::1"),
                event_hooks={"request": [_say_nothing_of_this_machine]},
            ),
        )

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        """The request, without what this server has refused before."""
        settings, refused = self.settings, self._refused
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "stream": True,
        }
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.reasoning_effort is not None:
            body["reasoning_effort"] = settings.reasoning_effort
        if "stream_options" not in refused:
            body["stream_options"] = {"include_usage": True}
        # OpenAI's newer models know only the first name, many other servers only the second.
        for cap in ("max_completion_tokens", "max_tokens"):
            if cap not in refused:
                body[cap] = settings.max_output_tokens
                break
        if request.json_schema is not None and "json_schema" not in refused:
            schema = {"name": f"{request.role.value}_reply", "schema": request.json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.json_schema is not None and "json_object" not in refused:
            body["response_format"] = {"type": "json_object"}
        return body

    def _parts(self, body: dict[str, Any]) -> list[str]:
        """The parts of `body` that can be left out when the server refuses them."""
        parts: list[str] = [p for p in ("stream_options", "max_completion_tokens", "max_tokens") if p in body]
        if "response_format" in body:
            parts.append(body["response_format"]["type"])
        if "max_output_tokens" in self.settings.model_fields_set and "max_tokens" in parts:
            parts.remove("max_tokens")  # the last way to say what the user wants
        return parts

    def _wait(self, tries: int, asked_s: float | None) -> float:
        """Seconds before the next try, jittered so that parallel runs do not come back all at once."""
        if asked_s is not None:
            return asked_s * random.uniform(1.0, 1.1)
        full = min(self.settings.backoff_max_s, self.settings.backoff_first_s * 2.0 ** (tries - 1))
        return full * random.uniform(0.5, 1.0)

    def _reported(self, usage: Any) -> Usage | None:
        """Tokens as the server counted them; None where it did not."""
        prompt, output = _get(usage, "prompt_tokens", int), _get(usage, "completion_tokens", int)
        if prompt is None or output is None:
            return None
        # Some servers count reasoning in the total alone.
        output = max(output, (_get(usage, "total_tokens", int) or 0) - prompt)
        cached = _get(getattr(usage, "prompt_tokens_details", None), "cached_tokens", int)
        return self._usage(prompt, output, cached or 0)

    def _estimate(self, request: ChatRequest, text: str) -> Usage:
        prompt = estimate_tokens(m.content for m in request.messages)
        return self._usage(prompt, estimate_tokens([text]), estimated=True)

    def _usage(self, prompt: int, output: int, cached: int = 0, *, estimated: bool = False) -> Usage:
        return priced(self.model, self.base_url, self.settings, prompt, output, cached, estimated=estimated)


def _get(thing: object, name: str, kind: type[_T]) -> _T | None:
    """An attribute of a chunk, if it is there and of that type: the client does not validate what servers send."""
    value = getattr(thing, name, None)
    return value if isinstance(value, kind) else None


def _without_frames(err: Exception) -> Exception:
    """`err` without tracebacks, whose frames hold the client's unfinished generators.

    Let go of here, they are closed in this event loop. Kept, they wait for the garbage collector, which may come when
    the loop has ended, in another thread.
    """
    links: list[BaseException | None] = [err]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            links += [link.__cause__, link.__context__]
    return err


async def _say_nothing_of_this_machine(request: httpx2.Request) -> None:
    """Takes out the headers by which the client reports operating system, architecture and Python version."""
    for name in [name for name in request.headers if name.lower().startswith("x-stainless-")]:
        del request.headers[name]
