"""Forms that pages post, and signing in with a token: what a browser needs beyond the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response

from cudaforge_api.problems import Problem, ProblemError
from cudaforge_api.problems import response as problem_response
from cudaforge_api.viewer.html import page

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 16


async def _form(request: Request) -> dict[str, str]:
    """The fields of a posted form. A browser writes line breaks as CR LF; here they are as they were typed."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
        raise ProblemError("bad-request", f"A form is sent as {FORM}.")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="replace")
    except ValueError:  # UnicodeDecodeError is one
        raise ProblemError("bad-request", "The form cannot be read.") from None
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


Form = Annotated[dict[str, str], Depends(_form)]


def onward(path: str) -> str:
    """Where to go after signing in: a path of this service, whatever was asked for."""
    parts = urlsplit(path) if path.startswith("/") and not path.startswith(("//", "/\\")) else None
    return path if parts and not parts.scheme and not parts.netloc and path.isprintable() else "/"


def is_page(request: Request) -> bool:
    """Whether a person waits for the answer, rather than a client of the API."""
    return not request.url.path.startswith("/api/")


def respond(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a page where a person asked, else as the API says it. Who must sign in is asked to."""
    if not is_page(request):
        return problem_response(problem, headers)
    if problem.status == 401 and request.method == "GET":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(asked)}", 303, {"Cache-Control": "no-store"})
    if (
        problem.status == 422 and request.method == "GET"
    ):  # an address that somebody typed: its form is no news to a reader
        problem = ProblemError("not-found", "There is no such page.", "The list of runs is at /.").problem
    return page("error.html", problem.status, headers, problem=problem)
