"""What went wrong with one try at a server: whether another can help, and the sentence for the user.

Nothing here repeats a key: what a server says is quoted with keys struck out, and a refused key's answer not at all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from cudaforge.errors import ModelError
from cudaforge.llm.settings import KEY_VARIABLE, URL_VARIABLE, public_url

_RETRIED = {408, 409, 425, 429}
"""Besides all of 5xx but 501."""
_KEY_LIKE = re.compile(r"(?i)\b(?:bearer\s+\S+|(?:sk|pk|key|api)-[\w*.\-]{6,})")


class CutStream(Exception):  # noqa: N818 - a finding about one try, not an error of its own
    """A stream that ended, or broke, before it said how the reply finished. `text` is what had come."""

    def __init__(self, text: str, cause: Exception | None = None) -> None:
        super().__init__("the stream was cut")
        self.text = text
        self.cause = cause


@dataclass(frozen=True)
class Fault:
    """One failed try."""

    sentence: str
    """Without a final period."""
    hint: str = ""
    retry: bool = False
    wait_s: float | None = None
    """How long the server asked us to wait."""

    def error(self) -> ModelError:
        return ModelError(self.sentence + ".", self.hint)


@dataclass(frozen=True)
class Asked:
    """Who was asked, for the sentences."""

    model: str
    base_url: str
    key: str

    @property
    def server(self) -> str:
        return public_url(self.base_url)

    def fault(self, err: Exception) -> Fault:
        """What `err`, raised by the openai client or as CutStream, means."""
        if isinstance(err, CutStream):
            why = f": {self._said(err.cause)}" if isinstance(err.cause, openai.APIError) else ""
            code = getattr(err.cause, "code", None)
            # Servers put an HTTP status there, or a code of their own, which says nothing about retrying.
            if code is not None and code in map(str, range(400, 500)) and not _retried(int(code)):
                return Fault(f"{self.server} broke its reply off{why}")
            return Fault(f"{self.server} cut its reply short{why}", retry=True)
        if isinstance(err, openai.APIStatusError):
            return self._status(err)
        if isinstance(err, openai.APITimeoutError):
            return Fault(
                f"{self.server} was silent for too long", "A larger first_byte_timeout_s waits longer.", retry=True
            )
        return Fault(
            f"{self.server} cannot be reached", f"Check the network, and {URL_VARIABLE} where it is set.", retry=True
        )

    def _status(self, err: openai.APIStatusError) -> Fault:
        status, said = err.status_code, self._said(err)
        if status == 401:
            if not self.key:
                return Fault(f"{self.server} wants a key and none is set", f"Set {KEY_VARIABLE}.")
            return Fault(f"{self.server} refused the key", f"Set {KEY_VARIABLE} to a key that is valid there.")
        if status == 402 or err.code == "insufficient_quota":
            return Fault(f"The account at {self.server} has no quota left", "Top it up, or use another model.")
        if status == 403:
            return Fault(
                f"{self.server} does not allow {self.model}: {said}", "Ask for access, or use another model or key."
            )
        if status == 404:
            what = f"knows no model {self.model}" if "model" in said.lower() else "has no chat completions there"
            return Fault(
                f"{self.server} {what}: {said}",
                f"Check the model's name, and {URL_VARIABLE}: most servers' addresses end in /v1.",
            )
        if _retried(status):
            return Fault(f"{self.server} answered {status}: {said}", retry=True, wait_s=_retry_after(err))
        hint = "Check the model's settings."
        if err.code == "context_length_exceeded" or "context" in said:
            hint = "Use a model with a longer context, or less history."
        return Fault(f"{self.server} refused the request ({status}): {said}", hint)

    def _said(self, err: Exception | None) -> str:
        """The server's own words: one line, bounded, keys struck out."""
        body = getattr(err, "body", None)
        words: Any = body
        if isinstance(body, dict):
            words = body.get("message") or body.get("detail") or body.get("error") or body
        text = words if isinstance(words, str) else json.dumps(words, default=str) if words else ""
        if not text or text.lstrip().startswith("<"):  # an HTML page of some proxy says nothing here
            return "no reason given"
        if self.key:
            text = text.replace(self.key, "***")
        text = " ".join(_KEY_LIKE.sub("***", text).split()).rstrip(".")
        return text if len(text) <= 300 else text[:300] + " [...]"


def speaks_of(err: openai.APIStatusError, words: tuple[str, ...]) -> bool:
    """Whether the server's refusal mentions one of `words`."""
    text = f"{err.message} {json.dumps(err.body, default=str)}".lower()
    return any(word in text for word in words)


def _retried(status: int) -> bool:
    return status in _RETRIED or (status >= 500 and status != 501)


def _retry_after(err: openai.APIStatusError) -> float | None:
    """Seconds to wait: `retry-after-ms`, or Retry-After as seconds or as a date."""
    headers = err.response.headers
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if 0 <= wait < float("inf"):
            return wait
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
