"""`manual:`: a person or another agent plays the model; the run waits at the prompt."""

from __future__ import annotations

from typing import NoReturn

from cudaforge.errors import Suspended
from cudaforge.ports import ChatRequest
from cudaforge.trace import Usage


class ManualModel:
    """Never answers by itself. A reply is stored by `cudaforge reply` and found there before this is asked again."""

    @property
    def name(self) -> str:
        return "manual:"

    async def complete(self, request: ChatRequest) -> NoReturn:
        run = request.key.partition(".")[0]
        raise Suspended(
            f"The {request.role.value} waits for a reply to {request.key}.",
            f"See the prompt with `cudaforge pending`, answer with `cudaforge reply {run} --file reply.md`, "
            f"then `cudaforge resume {run}`.",
            waiting_for=request.key,
        )

    def worst_case(self, request: ChatRequest) -> Usage:
        return Usage(usd=0.0)
