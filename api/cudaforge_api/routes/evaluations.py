"""One kernel against one task, without a run: build, check, time, and profile where asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from cudaforge import wiring
from cudaforge.jobs import Answer, SingleEvaluation, SingleState
from cudaforge.shapes import to_json
from cudaforge_api.access import Reader, Submitter
from cudaforge_api.answers import IdempotencyKey, IfNoneMatch, created, immutable, once_of, shaped
from cudaforge_api.problems import NOT_MODIFIED, ProblemError, binary, documented
from cudaforge_api.routes.common import (
    READS,
    WRITES,
    Digest,
    EvaluationId,
    Limit,
    TheService,
    bounds_of,
    check_owner,
    evaluator_of,
    kernel_of,
    options_of,
    page,
    task_of,
)
from cudaforge_api.service import Service
from cudaforge_api.shapes import EVALUATION_ID, EvaluationOutput, EvaluationPage, EvaluationStanding, NewEvaluation

router = APIRouter()


@router.post(
    "/evaluations",
    status_code=201,
    response_model=EvaluationStanding,
    responses=documented(*WRITES, "not-found", "unusable", "key-reused", "limit-reached"),
    tags=["evaluations"],
)
def create_evaluation(
    new: NewEvaluation, request: Request, service: TheService, caller: Submitter, idempotency_key: IdempotencyKey = None
) -> Response:
    """Has one kernel measured against one task. GET it until its state is `done`."""
    once = once_of(caller, idempotency_key, request, new)

    def carry_out() -> Answer:
        record = service.record
        task, kernel = task_of(service, new.task), kernel_of(service, new.kernel)
        single = SingleEvaluation(
            id=wiring.new_id("e"),
            task=task,
            kernel=kernel,
            evaluator=evaluator_of(service, new.evaluator, kernel.language),
            options=options_of(new.options),
            metrics=new.metrics,
        )
        body = to_json(EvaluationStanding(id=single.id, state=single.state))
        answer = Answer(status=201, body=body, location=f"/api/v1/evaluations/{single.id}")
        return record.queue.submit(single, caller.id, bounds_of(service, caller), answer, once)

    return created(service, once, carry_out)


@router.get("/evaluations", response_model=EvaluationPage, responses=documented(*READS), tags=["evaluations"])
def list_evaluations(
    service: TheService,
    _: Reader,
    state: SingleState | None = None,
    cursor: Annotated[str | None, Query(pattern=EVALUATION_ID)] = None,
    limit: Limit = 50,
) -> Response:
    """Single evaluations, newest first."""
    items, following = page(service.record.find_singles(state, before=cursor, limit=limit + 1), limit)
    return shaped(EvaluationPage(items=items, next=following))


@router.get(
    "/evaluations/{evaluation_id}",
    response_model=EvaluationOutput,
    responses=documented(*READS, "not-found"),
    tags=["evaluations"],
)
def get_evaluation(evaluation_id: EvaluationId, service: TheService, _: Reader) -> Response:
    """One evaluation, with verdict, all raw times and the profile once it is done."""
    single = _single(service, evaluation_id)
    return shaped(
        EvaluationOutput(
            id=single.id,
            state=single.state,
            task=single.task.id,
            task_name=single.task.name,
            kernel=single.kernel.id,
            evaluator=single.evaluator,
            error=single.error,
            evaluation=single.evaluation,
            profile=single.profile,
            report=single.report,
            created=single.created,
            updated=single.updated,
        )
    )


@router.post(
    "/evaluations/{evaluation_id}/cancel",
    status_code=202,
    response_model=EvaluationStanding,
    responses=documented(*WRITES, "not-found", "conflict"),
    tags=["evaluations"],
)
def cancel_evaluation(evaluation_id: EvaluationId, service: TheService, caller: Submitter) -> Response:
    """Stops an evaluation."""
    _single(service, evaluation_id)
    check_owner(service, caller, evaluation_id)
    if not service.record.queue.cancel(evaluation_id):
        raise ProblemError("conflict", f"Evaluation {evaluation_id} has ended.")
    single = _single(service, evaluation_id)
    return shaped(EvaluationStanding(id=single.id, state=single.state), 202)


@router.get(
    "/artifacts/{digest}",
    response_class=Response,
    responses=documented(
        *READS,
        "not-found",
        more=binary("application/octet-stream") | NOT_MODIFIED,
    ),
    tags=["evaluations"],
)
def get_artifact(
    digest: Digest, request: Request, service: TheService, _: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """Bytes under their SHA-256: a profiler's report, say. Reports may be deleted to free space."""
    data = service.record.artifact(digest)
    if data is None:
        raise ProblemError("not-found", f"There is no artefact {digest}.", "Old profiler reports may be deleted.")
    headers = {"Content-Disposition": f'attachment; filename="{digest[:16]}.bin"'}
    return immutable(request, digest, lambda: Response(data, headers=headers, media_type="application/octet-stream"))


def _single(service: Service, evaluation_id: str) -> SingleEvaluation:
    single = service.record.queue.single(evaluation_id)
    if single is None:
        raise ProblemError("not-found", f"There is no evaluation {evaluation_id}.")
    return single
