"""The service about itself: health, what it offers, its queue; and what was learnt over all runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cudaforge import __version__, wiring
from cudaforge.errors import StoreError
from cudaforge.kernel import Language
from cudaforge.shapes import RunFilter
from cudaforge.trace import Plan
from cudaforge_api.access import Admin, Reader
from cudaforge_api.answers import shaped
from cudaforge_api.problems import Responses, documented
from cudaforge_api.routes.common import READS, TheService, bounds_of, page
from cudaforge_api.shapes import (
    RUN_ID,
    About,
    DevicePage,
    Health,
    LimitsOutput,
    MethodLine,
    MethodPage,
    QueueOutput,
    Readiness,
    WorkerLine,
)

router, open_router = APIRouter(), APIRouter()


@open_router.get("/health", response_model=Health, responses=documented("unknown-host"), tags=["system"])
async def health() -> Response:
    """The process answers. Needs no token."""
    return shaped(Health(status="ok", version=__version__))


NOT_READY: Responses = {503: {"model": Readiness, "description": "Work is not accepted, or nobody carries it out."}}


@open_router.get(
    "/ready",
    response_model=Readiness,
    responses=documented(
        "unknown-host",
        more=NOT_READY,
    ),
    tags=["system"],
)
def ready(service: TheService) -> Response:
    """Whether the record can be used, a worker lives and the queue has room. Needs no token."""
    try:
        counts, workers = service.record.queue.counts(), service.record.queue.workers()
    except StoreError:
        state = Readiness(ready=False, database=False, workers=0, queued=0, reason="The record cannot be used.")
        return shaped(state, 503)
    reason = ""
    if not workers:
        reason = "No worker is running: start `cudaforge worker`."
    elif counts["queued"] >= service.settings.limits.queue.queued:
        reason = "The queue is full."
    state = Readiness(ready=not reason, database=True, workers=len(workers), queued=counts["queued"], reason=reason)
    return shaped(state, 503 if reason else 200)


@router.get("/about", response_model=About, responses=documented(*READS), tags=["system"])
def about(service: TheService, caller: Reader) -> Response:
    """Version, models, evaluators and limits, as this caller has them."""
    settings = service.settings
    limits, bounds = settings.limits, bounds_of(service, caller)
    return shaped(
        About(
            version=__version__,
            caller=caller.id,
            scope=caller.scope,
            models=settings.models,
            recordings=tuple(sorted(wiring.recordings(settings.recordings))),
            evaluators=settings.evaluators,
            languages=tuple(Language),
            limits=LimitsOutput(
                body=limits.body,
                source=limits.source,
                reply=limits.reply,
                rounds=limits.rounds,
                usd=limits.usd,
                seconds=limits.seconds,
                active=bounds.active,
                queue=bounds.queued,
                streams=limits.streams,
            ),
        )
    )


@router.get("/queue", response_model=QueueOutput, responses=documented(*READS), tags=["system"])
def queue(service: TheService, _: Admin) -> Response:
    """How much waits and who works on it. Scope admin."""
    counts = service.record.queue.counts()
    workers = tuple(WorkerLine.model_validate(info.model_dump()) for info in service.record.queue.workers())
    return shaped(QueueOutput(**counts, workers=workers, streams=service.feed.listeners))


@router.get("/devices", response_model=DevicePage, responses=documented(*READS), tags=["knowledge"])
def devices(service: TheService, _: Reader) -> Response:
    """Devices on which runs were measured, the most used first."""
    return shaped(DevicePage(items=tuple(service.record.devices())))


@router.get("/methods", response_model=MethodPage, responses=documented(*READS), tags=["knowledge"])
def methods(
    service: TheService,
    _: Reader,
    task: Annotated[str | None, Query(max_length=100, description="Name or id.")] = None,
    language: Language | None = None,
    device: Annotated[str | None, Query(max_length=200)] = None,
    cursor: Annotated[str | None, Query(pattern=RUN_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=50, description="Runs of a page.")] = 20,
) -> Response:
    """Optimisation methods that Judges have proposed, what they promised and what was measured."""
    wanted = RunFilter(task=task, language=language.value if language else None, device=device)
    runs, following = page(service.record.find_runs(wanted, before=cursor, limit=limit + 1), limit)
    items = [
        MethodLine(
            run=run.id,
            task=run.task_name,
            language=run.language,
            device=run.device,
            round=attempt.round,
            plan=attempt.advice,
            verdict=attempt.verdict.value if attempt.verdict else None,
            predicted_gain=attempt.predicted_gain,
            measured_gain=attempt.measured_gain,
        )
        for run in runs
        for attempt in service.record.attempts(run.id)
        if isinstance(attempt.advice, Plan)
    ]
    return shaped(MethodPage(items=tuple(items), next=following))
