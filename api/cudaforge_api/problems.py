"""How the service says no: RFC 9457 problem documents, each with a `type` that never changes.

Nothing else than what this module makes leaves the service as an error, so a traceback or a secret cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from cudaforge.errors import (
    ConflictError,
    CudaForgeError,
    KeyReuseError,
    LimitError,
    ModelError,
    StoreError,
    UsageError,
)
from cudaforge.shapes import Shape, to_json

MEDIA_TYPE = "application/problem+json"
URN = "urn:cudaforge:problem:"
RETRY_AFTER_S = "5"
Responses = dict[int | str, dict[str, Any]]
NOT_MODIFIED: Responses = {304: {"description": "The client has it."}}
log = logging.getLogger("cudaforge.api")

PROBLEMS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be understood"),
    "unauthenticated": (401, "A valid bearer token is needed"),
    "forbidden": (403, "This token may not do that"),
    "cross-origin": (403, "A page of another site asked"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "This resource has no such method"),
    "conflict": (409, "It does not fit where the run stands"),
    "collected": (410, "The bytes were deleted to free space"),
    "too-large": (413, "The request is too large"),
    "unknown-host": (421, "The service is not known under this name"),
    "invalid": (422, "The request does not have the form that is documented"),
    "unusable": (422, "The task, kernel or models cannot be used"),
    "key-reused": (422, "The Idempotency-Key belongs to another request"),
    "limit-reached": (429, "A limit is reached; try again later"),
    "internal": (500, "The service failed"),
    "unavailable": (503, "The record cannot be used at the moment"),
}
"""Name -> status and title. The name is the end of `type`; docs/service.md lists them."""


class FieldError(Shape):
    """What is wrong with one part of a request."""

    pointer: str
    """JSON pointer into the body (`/budget/rounds`), or `query:NAME`, `path:NAME`, `header:NAME`."""
    detail: str


class Problem(Shape):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    """What to do about it; may be empty."""
    errors: tuple[FieldError, ...] = ()


class ProblemError(Exception):
    """Raised by a route; becomes the answer."""

    def __init__(self, name: str, detail: str, hint: str = "", errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        status, title = PROBLEMS[name]
        self.problem = Problem(type=URN + name, title=title, status=status, detail=detail, hint=hint, errors=errors)


def response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as an answer."""
    more = dict(headers or {})
    if problem.status == HTTPStatus.UNAUTHORIZED:
        more["WWW-Authenticate"] = "Bearer"
    if problem.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        more["Retry-After"] = RETRY_AFTER_S
    return Response(to_json(problem), problem.status, more, MEDIA_TYPE)


def documented(*names: str, more: Responses | None = None) -> Responses:
    """The `responses` of a route that may answer with these problems, and with `more`."""
    by_status: Responses = dict(more or {})
    for name in names:
        status, title = PROBLEMS[name]
        example = {"type": URN + name, "title": title, "status": status, "detail": "...", "hint": "", "errors": []}
        known = by_status.setdefault(
            status, {"description": "", "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA}, "examples": {}}}}
        )
        known["description"] = "; ".join(filter(None, [known["description"], f"{title} (`{name}`)"]))
        known["content"][MEDIA_TYPE]["examples"][name] = {"value": example}
    return by_status


def binary(media_type: str) -> Responses:
    """The `responses` of a route that answers with bytes."""
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


SCHEMA = "#/components/schemas/Problem"


def from_error(error: CudaForgeError) -> Problem:
    """One of our errors as a problem."""
    name = "unusable"
    if isinstance(error, ConflictError):
        name = "conflict"
    elif isinstance(error, KeyReuseError):
        name = "key-reused"
    elif isinstance(error, LimitError):
        name = "limit-reached"
    elif isinstance(error, StoreError):
        name = "unavailable"
    elif not isinstance(error, UsageError | ModelError):
        name = "internal"
    detail, hint = (error.message, error.hint)
    if name in ("unavailable", "internal"):  # may name paths of this machine: that is for its log
        log.error("%s %s", error.message, error.hint)
        detail, hint = "The record or a part of this machine could not be used.", "The service's log says why."
    return ProblemError(name, detail, hint).problem


Respond = Callable[[Request, Problem, Mapping[str, str] | None], Response]


def install(app: FastAPI, respond: Respond) -> None:
    """Makes every error of an application a problem, and `respond` its answer."""

    @app.exception_handler(ProblemError)
    async def of_ours(request: Request, error: ProblemError) -> Response:
        return respond(request, error.problem, None)

    @app.exception_handler(CudaForgeError)
    async def of_the_core(request: Request, error: CudaForgeError) -> Response:
        return respond(request, from_error(error), None)

    @app.exception_handler(RequestValidationError)
    async def of_form(request: Request, error: RequestValidationError) -> Response:
        listed = tuple(_field(entry) for entry in error.errors()[:20])
        first = f"{listed[0].pointer}: {listed[0].detail}" if listed else "It does not fit."
        hint = "GET /api/v1/openapi.json describes the form."
        return respond(request, ProblemError("invalid", first, hint, listed).problem, None)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        by_status = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
        name = by_status.get(error.status_code, "bad-request" if error.status_code < 500 else "internal")
        return respond(request, ProblemError(name, f"{error.detail}.").problem, error.headers)

    @app.exception_handler(Exception)
    async def of_anything(request: Request, error: Exception) -> Response:
        # Starlette raises it again after this is sent, so the server's log has the trace.
        detail = "The service met an error of its own."
        return respond(request, ProblemError("internal", detail, "The service's log says why.").problem, None)


def _field(entry: Mapping[str, Any]) -> FieldError:
    place, *rest = [str(part) for part in entry["loc"]] or ["body"]
    pointer = "/" + "/".join(rest) if place == "body" else f"{place}:{'.'.join(rest)}"
    return FieldError(pointer=pointer, detail=str(entry["msg"]))
