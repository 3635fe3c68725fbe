"""Tasks and kernels: what is optimised, and what came out."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from cudaforge.jobs import Answer
from cudaforge.shapes import to_json
from cudaforge_api.access import Reader, Submitter
from cudaforge_api.answers import IdempotencyKey, IfNoneMatch, created, immutable, once_of, shaped
from cudaforge_api.problems import NOT_MODIFIED, Responses, binary, documented
from cudaforge_api.routes.common import READS, WRITES, KernelId, Limit, TaskId, TheService, kernel_of, page, task_of
from cudaforge_api.shapes import TASK_ID, KernelOutput, NewTask, TaskOutput, TaskPage

router = APIRouter()

KNOWN: Responses = {200: {"model": TaskOutput, "description": "It was known already."}}


@router.post(
    "/tasks",
    status_code=201,
    response_model=TaskOutput,
    responses=documented(*WRITES, "unusable", "key-reused", more=KNOWN),
    tags=["tasks"],
)
def upload_task(
    new: NewTask, request: Request, service: TheService, caller: Submitter, idempotency_key: IdempotencyKey = None
) -> Response:
    """Keeps a task for runs and evaluations. Its id is the hash of source and metadata."""
    once = once_of(caller, idempotency_key, request, new)

    def carry_out() -> Answer:
        task = task_of(service, new)
        status = 201 if service.record.keep_task(task, caller.id) else 200
        shown = TaskOutput(id=task.id, name=task.name, source=task.source, meta=task.meta)
        answer = Answer(status=status, body=to_json(shown), location=f"/api/v1/tasks/{task.id}")
        return service.record.queue.remember(once, answer) if once else answer

    return created(service, once, carry_out)


@router.get("/tasks", response_model=TaskPage, responses=documented(*READS), tags=["tasks"])
def list_tasks(
    service: TheService,
    _: Reader,
    name: Annotated[str | None, Query(max_length=100)] = None,
    cursor: Annotated[str | None, Query(pattern=TASK_ID)] = None,
    limit: Limit = 50,
) -> Response:
    """Tasks that were uploaded or submitted, newest first."""
    items, following = page(service.record.find_tasks(name, before=cursor, limit=limit + 1), limit)
    return shaped(TaskPage(items=items, next=following))


@router.get(
    "/tasks/{task_id}",
    response_model=TaskOutput,
    responses=documented(*READS, "not-found", more=NOT_MODIFIED),
    tags=["tasks"],
)
def get_task(
    task_id: TaskId, request: Request, service: TheService, _: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """One task with its source."""
    task = task_of(service, task_id)
    shown = TaskOutput(id=task.id, name=task.name, source=task.source, meta=task.meta)
    return immutable(request, task.id, lambda: shaped(shown))


@router.get(
    "/kernels/{kernel_id}",
    response_model=KernelOutput,
    responses=documented(*READS, "not-found", more=NOT_MODIFIED),
    tags=["kernels"],
)
def get_kernel(
    kernel_id: KernelId, request: Request, service: TheService, _: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """One kernel with its files."""
    kernel = kernel_of(service, kernel_id)
    shown = KernelOutput(id=kernel.id, language=kernel.language, files=kernel.files, flags=kernel.flags)
    return immutable(request, kernel.id, lambda: shaped(shown))


@router.get(
    "/kernels/{kernel_id}/package",
    response_class=Response,
    responses=documented(
        *READS,
        "not-found",
        more=binary("application/zip") | NOT_MODIFIED,
    ),
    tags=["kernels"],
)
def get_package(
    kernel_id: KernelId, request: Request, service: TheService, _: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """The kernel as a Python package: unpack it and `from kernel_... import ModelNew`. It needs torch and tvm-ffi."""
    kernel = kernel_of(service, kernel_id)

    def make() -> Response:
        name = f"kernel_{kernel.id}"
        archive = io.BytesIO()
        with tempfile.TemporaryDirectory(prefix="cudaforge-package-") as folder:
            written = kernel.write_package(Path(folder) / name)
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
                for path in sorted(written.iterdir()):
                    made.write(path, f"{name}/{path.name}")
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
        return Response(archive.getvalue(), headers=headers, media_type="application/zip")

    return immutable(request, f"{kernel.id}-package", make)
