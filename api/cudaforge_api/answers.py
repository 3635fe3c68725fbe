"""How the service says yes: JSON that survives any text and number, ETags, answers given once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import Header, Request
from fastapi.responses import Response
from pydantic import BaseModel

from cudaforge.jobs import Answer, Once
from cudaforge.shapes import to_json
from cudaforge_api.access import Caller
from cudaforge_api.service import Service

JSON = "application/json"
FOREVER = "private, max-age=31536000, immutable"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Sent again within 24 hours, the same request gets the same answer and creates nothing.",
        examples=["6f1a2c0e-run-1"],
    ),
]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="ETag that the client has already.")]


def shaped(shape: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A shape as the answer."""
    return Response(to_json(shape), status, dict(headers or {}), JSON)


def immutable(request: Request, tag: str, make: Callable[[], Response]) -> Response:
    """Something that never changes: 304 where the client has it, else made, with its ETag."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": FOREVER}
    known = re.findall(r'"([^"]*)"', request.headers.get("if-none-match", ""))
    if tag in known or request.headers.get("if-none-match", "").strip() == "*":
        return Response(status_code=304, headers=headers)
    made = make()
    made.headers.update(headers)
    return made


def once_of(caller: Caller, key: str | None, request: Request, body: BaseModel) -> Once | None:
    """What makes this request one that is carried out once; None where it has no Idempotency-Key."""
    if key is None:
        return None
    asked = f"{request.method} {request.url.path}\n{to_json(body)}"
    return Once(submitter=caller.id, key=key, fingerprint=hashlib.sha256(asked.encode()).hexdigest())


def created(service: Service, once: Once | None, carry_out: Callable[[], Answer]) -> Response:
    """What a request that creates is answered with: as before where it came before, else carried out.

    Whatever carries it out looks again, in the transaction that creates: of two at the same time the first counts.
    """
    answer = (service.record.queue.answered(once) if once else None) or carry_out()
    headers = {"Location": answer.location}
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(answer.body, answer.status, headers, JSON)
