"""Who asks and what they may do: bearer tokens, and the guard of a service that asks for none.

A service on loopback without tokens trusts who can reach it; but a web page in a browser on the same machine can, too.
So such a service answers only under names of this machine (a page cannot make the browser send those for a host name
of its own), and nothing that changes anything may come from a page of another site.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cudaforge.jobs import LOCAL
from cudaforge.jobs import Scope as TokenScope
from cudaforge_api.problems import ProblemError, response
from cudaforge_api.service import Service, service_of
from cudaforge_api.settings import Settings
from cudaforge_profiling.types import Frozen

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
COOKIE = "cudaforge_token"
"""What the viewer's /login sets: the token, out of reach of scripts and of other sites."""

EVERYWHERE = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"))
"""Nothing that is served is taken for another type than it says, and no address is told to another site."""

bearer = HTTPBearer(auto_error=False, description="A token that `cudaforge token create` has made.")


class Caller(Frozen):
    """Who sent a request."""

    id: str
    """Of the token, or `local`."""
    scope: TokenScope
    max_active: int | None = None

    def may_change(self, submitter: str | None) -> bool:
        """Whether what `submitter` submitted is this caller's to cancel, resume and answer."""
        return self.scope is TokenScope.ADMIN or (self.scope is TokenScope.SUBMIT and submitter == self.id)


def caller(needed: TokenScope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who must have this scope. A token that is sent must be valid, needed or not."""

    async def find(request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Caller:
        service = service_of(request)
        found = await _caller(service, request, sent)
        if not found.scope.covers(needed):
            raise ProblemError(
                "forbidden", f"This needs the scope {needed.value}; the token has {found.scope.value}.", "Ask for one."
            )
        return found

    return find


async def _caller(service: Service, request: Request, sent: HTTPAuthorizationCredentials | None) -> Caller:
    cookie = request.cookies.get(COOKIE)
    if sent is None and cookie is not None and service.settings.require_token:
        # A browser sends it along with whatever a page makes it send: a change must say that it comes from our page.
        if request.method not in SAFE and not {"origin", "sec-fetch-site"} & set(request.headers):
            raise ProblemError("cross-origin", "A change that a cookie vouches for must name its Origin.")
        sent = HTTPAuthorizationCredentials(scheme="Bearer", credentials=cookie)
    if sent is None:
        if service.settings.require_token or request.headers.get("authorization"):
            hint = "Send `Authorization: Bearer TOKEN`; `cudaforge token create` makes one."
            raise ProblemError("unauthenticated", "The request has no bearer token.", hint)
        return Caller(id=LOCAL, scope=TokenScope.ADMIN)
    token = await run_in_threadpool(service.record.tokens.find, sent.credentials)
    if token is None:
        raise ProblemError("unauthenticated", "The token is unknown or was revoked.", "`cudaforge token list`.")
    return Caller(id=token.id, scope=token.scope, max_active=token.max_active)


Reader = Annotated[Caller, Depends(caller(TokenScope.READ))]
Submitter = Annotated[Caller, Depends(caller(TokenScope.SUBMIT))]
Admin = Annotated[Caller, Depends(caller(TokenScope.ADMIN))]


class Guard:
    """ASGI middleware: refuses large bodies, foreign host names where no token is needed, writes of foreign pages."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.most = settings.limits.body
        # Of a reply in a form of the viewer's: there a character of code takes up to three times its bytes.
        self.most_of_a_form = max(self.most, 3 * settings.limits.reply + (64 << 10))
        self._too_large = f"A request's body may have {self.most} bytes"
        self.names = None if settings.require_token else {*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size, most = 0, self._most(scope)

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:  # sent in pieces, without a length
                raise HTTPException(413, self._too_large)
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *EVERYWHERE]}
            await send(message)

        if (problem := self._problem(scope)) is not None:
            await response(problem.problem)(scope, receive, with_headers)
            return
        await self.app(scope, counted, with_headers)

    def _most(self, scope: Scope) -> int:
        """Bytes that this request's body may have."""
        return self.most if scope["path"].startswith("/api/") else self.most_of_a_form

    def _problem(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        host = _hostname(f"//{headers.get('host', '')}")
        if self.names is not None and host not in self.names:
            return ProblemError("unknown-host", f"{host or 'No host'} is not a name of this service.", "Use localhost.")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:18]) > self._most(scope):
            return ProblemError("too-large", f"{self._too_large}.", "GET /api/v1/about shows the limits.")
        if scope["method"] in SAFE:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and _netloc(origin) != headers.get("host", "").lower()
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return ProblemError("cross-origin", "A page of another site may not change anything here.")
        return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """`host:port` of an Origin header; empty where it is none (`null`)."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
