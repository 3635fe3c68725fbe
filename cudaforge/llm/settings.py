"""What an `openai:` model can be told, and whether this environment can reach one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, ValidationError, model_validator

from cudaforge.errors import UsageError
from cudaforge_profiling.types import Frozen

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"


class OpenAISettings(Frozen):
    """How an `openai:` model is asked. Times in seconds, prices in US dollars per million tokens."""

    temperature: float | None = Field(None, ge=0, le=2)
    """None: the server's own default; some models take no other."""
    max_output_tokens: int = Field(32_768, ge=1)
    """Caps a reply, reasoning included, and so bounds what a call can cost. A server that refuses this default
    is asked without it; a cap that was set on purpose is never dropped."""
    reasoning_effort: str | None = None
    """`low`, `medium`, `high` or what else the model knows."""

    max_retries: int = Field(6, ge=0)
    """Tries after the first: 429, 5xx, timeouts, broken connections, cut streams."""
    backoff_first_s: float = Field(1.0, ge=0)
    """Wait before the first retry; doubles from there. A server's Retry-After takes its place."""
    backoff_max_s: float = Field(60.0, ge=0)
    connect_timeout_s: float = Field(10.0, gt=0)
    first_byte_timeout_s: float = Field(300.0, gt=0)
    """Longest silence of the server, before its first byte or between two: models that think are silent for long."""
    total_timeout_s: float = Field(1800.0, gt=0)
    """Bound on a whole call, with all its tries and waits."""

    usd_per_million_input: float | None = Field(None, ge=0)
    """With `usd_per_million_output`: takes the place of the price list, for servers that it does not know."""
    usd_per_million_output: float | None = Field(None, ge=0)
    usd_per_million_cached: float | None = Field(None, ge=0)
    """Input tokens that the server found in its cache; None: like other input."""

    @model_validator(mode="after")
    def _both_prices(self) -> Self:
        if (self.usd_per_million_input is None) != (self.usd_per_million_output is None):
            raise ValueError("usd_per_million_input and usd_per_million_output go together")
        if self.usd_per_million_cached is not None and self.usd_per_million_input is None:
            raise ValueError("usd_per_million_cached needs usd_per_million_input and usd_per_million_output")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> OpenAISettings:
        """Reads settings as given on a command line or to a constructor.

        Raises:
            UsageError: a name is unknown or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as err:
            first = err.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "settings"
            raise UsageError(
                f"Model setting {where}: {first['msg']}.", "Settings are: " + ", ".join(cls.model_fields) + "."
            ) from None


class Access(Frozen):
    """Whether `openai:` models can be asked from here. Never holds the key."""

    base_url: str
    """Without user name, password and query."""
    base_url_from: str
    """`OPENAI_BASE_URL` or `default`."""
    key_present: bool
    advice: str = ""
    """What to do; empty where a model can be asked."""


def openai_access(environ: Mapping[str, str] | None = None) -> Access:
    """Looks into the environment (os.environ by default); asks no server, so a key may still turn out refused."""
    environ = os.environ if environ is None else environ
    url = environ.get(URL_VARIABLE, "").strip()
    key = bool(environ.get(KEY_VARIABLE, "").strip())
    advice = ""
    if not key and not url:
        advice = (
            f"Set {KEY_VARIABLE}, or {URL_VARIABLE} for another OpenAI-compatible server; "
            "`recorded:` and `manual:` models need neither."
        )
    elif url and not is_server(url):
        advice = f"Set {URL_VARIABLE} to an http(s) URL; what it holds is none."
    return Access(
        base_url=public_url(url or OPENAI_URL),
        base_url_from=URL_VARIABLE if url else "default",
        key_present=key,
        advice=advice,
    )


def public_url(url: str) -> str:
    """The URL without what may be secret in it: user name, password, query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2].partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def is_server(url: str) -> bool:
    """Whether this is an http(s) URL with a host and, if any, a port in range."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
