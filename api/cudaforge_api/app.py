"""Puts the service together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from cudaforge import __version__, wiring
from cudaforge.errors import UsageError
from cudaforge_api import problems
from cudaforge_api.access import Guard
from cudaforge_api.events import Feed
from cudaforge_api.problems import Problem
from cudaforge_api.routes import evaluations, runs, system, tasks
from cudaforge_api.service import Service
from cudaforge_api.settings import Settings
from cudaforge_api.viewer import forms
from cudaforge_api.viewer import routes as viewer

PREFIX = "/api/v1"
DESCRIPTION = """Submit PyTorch modules, follow how models write kernels for them, fetch the verified result.

Errors are RFC 9457 problem documents; their `type` never changes. POSTs that create take an `Idempotency-Key`.
Lists go from the newest to the oldest; `next` is the `cursor` of the next page. Times are UTC, durations seconds (`_s`)
or microseconds (`_us`), money US dollars."""


class Api(FastAPI):
    """FastAPI, whose OpenAPI document has the problems' schema in place of FastAPI's own of a validation error."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            made = super().openapi()
            schemas = made["components"]["schemas"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
        return self.openapi_schema or {}


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application over the home that `settings` name; opening it migrates an older database.

    Raises StoreError where the home cannot be used, UsageError where it would listen to others without tokens.
    """
    if not settings.on_loopback and not settings.require_token:
        raise UsageError(
            f"{settings.host} can be reached from other machines: tokens must be required there.",
            "Make one with `cudaforge token create`, or listen on 127.0.0.1.",
        )
    record = wiring.open_record(settings.home)
    limits = settings.limits
    feed = Feed(record, settings.poll_s, limits.streams, limits.heartbeat_s)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(feed.watch())
        try:
            yield
        finally:
            feed.close()
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            record.close()

    app = Api(
        title="CudaForge",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = Service(settings, record, feed)
    problems.install(app, forms.respond)
    app.add_middleware(Guard, settings=settings)
    for router in (system.open_router, system.router, tasks.router, runs.router, evaluations.router):
        app.include_router(router, prefix=PREFIX)
    app.include_router(viewer.router)
    return app
