"""What the viewer answers: pages, and the few forms in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from cudaforge_api.access import Reader
from cudaforge_api.answers import FOREVER
from cudaforge_api.problems import ProblemError
from cudaforge_api.routes.common import TheService
from cudaforge_api.viewer import html
from cudaforge_api.viewer.html import page
from cudaforge_api.viewer.runs import Filter, runs_page

router = APIRouter(include_in_schema=False)


@router.get("/static/{digest}/{name:path}")
def static(digest: str, name: str, request: Request) -> Response:
    """A file of the pages. Under its digest it never changes; under another one it is given all the same, not kept."""
    data = html.static_files().get(name)
    if data is None:
        raise ProblemError("not-found", f"There is no file {name}.")
    kept = FOREVER if digest == html.static_digest() else "no-store"
    suffix = name[name.rfind(".") :]
    return Response(data, headers={"Cache-Control": kept}, media_type=html.MEDIA_TYPES[suffix])


@router.get("/")
def runs(service: TheService, _: Reader, asked: Filter) -> Response:
    """All runs."""
    return page("runs.html", page=runs_page(service.record, asked))
