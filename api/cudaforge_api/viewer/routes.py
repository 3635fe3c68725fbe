"""What the viewer answers: pages, downloads, and the few forms in them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from cudaforge.errors import ConflictError
from cudaforge.trace import Attempt, RunState
from cudaforge_api.access import COOKIE, Caller, Reader, Submitter
from cudaforge_api.answers import FOREVER
from cudaforge_api.problems import ProblemError, from_error
from cudaforge_api.routes.common import Round, RunId, TheService, the_run
from cudaforge_api.routes.runs import store_reply
from cudaforge_api.service import Service
from cudaforge_api.shapes import NewReply
from cudaforge_api.viewer import charts, export, html, reproduce
from cudaforge_api.viewer.compare import compare_page
from cudaforge_api.viewer.forms import Form, onward
from cudaforge_api.viewer.html import page
from cudaforge_api.viewer.rounds import TABS, round_page
from cudaforge_api.viewer.run import RunPage, newest_event, run_page
from cudaforge_api.viewer.runs import Asked, runs_page

router = APIRouter(include_in_schema=False)
COOKIE_S = 30 * 24 * 3600


@router.get("/static/{digest}/{name:path}")
def static(digest: str, name: str) -> Response:
    """A file of the pages. Under its digest it never changes; under another one it is given all the same, not kept."""
    data = html.static_files().get(name)
    if data is None:
        raise ProblemError("not-found", f"There is no file {name}.")
    kept = FOREVER if digest == html.static_digest() else "no-store"
    return Response(data, headers={"Cache-Control": kept}, media_type=html.MEDIA_TYPES[name[name.rfind(".") :]])


# -- pages ---------------------------------------------------------------------------------------------------------


@router.get("/")
def runs(service: TheService, request: Request, _: Reader) -> Response:
    """All runs."""
    return page("runs.html", page=runs_page(service.record, Asked.of(request.query_params)))


@router.get("/runs/{run_id}")
def run(run_id: RunId, service: TheService, caller: Reader) -> Response:
    """One run."""
    return _run(service, caller, run_id)


def _run(service: Service, caller: Caller, run_id: str, status: int = 200, **more: str) -> Response:
    last_event = newest_event(service.record, run_id)
    found = the_run(service, run_id)
    job = service.record.queue.job(found.id) if found.state is RunState.SUSPENDED else None
    made = run_page(service.record, found, last_event)
    made.may_reply = caller.may_change(job.submitter if job else None)
    made.queued = job is not None
    made.error, made.text = more.get("error", ""), more.get("text", "")
    return page("run.html", status, page=made, scale=scale_of(made))


def scale_of(made: RunPage) -> tuple[float, float]:
    """Of the whiskers in the table of rounds."""
    return charts.scale_of(r.attempt.speedup.eager for r in made.rounds if r.attempt.speedup)


@router.get("/runs/{run_id}/rounds/{round}")
def one_round(
    run_id: RunId, round: Round, service: TheService, request: Request, _: Reader, tab: str = "plan", against: str = ""
) -> Response:
    """One round, one of its tabs. What is no tab is the first one; what is no round is the parent."""
    last_event = newest_event(service.record, run_id)
    found = the_run(service, run_id)
    shown = next((name for name in TABS if name == tab), TABS[0])
    number = int(against) if against.isdecimal() and len(against) < 5 else None
    made = round_page(service.record, found, _attempt(service, run_id, round), shown, number, last_event)
    commands = ""
    if made.kernel:
        base, token = str(request.base_url), service.settings.require_token
        commands = reproduce.commands(found, made.kernel, base, token)
    task = reproduce.task_file(found.spec.task)
    return page("round.html", page=made, tabs=TABS, command=commands, task_file=task)


@router.get("/compare")
def compare(
    service: TheService,
    _: Reader,
    a: str = "",
    b: str = "",
    run: Annotated[list[str] | None, Query(max_length=100)] = None,
) -> Response:
    """Two runs side by side; `run` twice is what the list of runs sends."""
    if run is not None:
        first, second, *_more = [*run, "", ""]
        return RedirectResponse(f"/compare?{html.query(a=first, b=second)}", 303)
    return page("compare.html", **compare_page(service.record, a, b))


# -- downloads -----------------------------------------------------------------------------------------------------


@router.get("/runs/{run_id}/export")
def exported(run_id: RunId, service: TheService, _: Reader) -> Response:
    """The run as one file that needs neither this service nor a network."""
    data = export.export_run(service.record, the_run(service, run_id))
    return _attachment(data, f"{run_id}.html", "text/html; charset=utf-8")


@router.get("/runs/{run_id}/task.py")
def task_source(run_id: RunId, service: TheService, _: Reader) -> Response:
    """The task as one file."""
    task = the_run(service, run_id).spec.task
    data = reproduce.task_source(task).encode("utf-8", "surrogatepass")
    return _attachment(data, reproduce.task_file(task), "text/plain; charset=utf-8")


@router.get("/runs/{run_id}/rounds/{round}/files/{name}")
def source(run_id: RunId, round: Round, name: str, service: TheService, _: Reader) -> Response:
    """One file of a round's kernel."""
    attempt = _attempt(service, run_id, round)
    kernel = service.record.kernel(attempt.kernel) if attempt.kernel else None
    if kernel is None or name not in kernel.files:
        raise ProblemError("not-found", f"Round {round} of {run_id} has no file {name}.")
    return _attachment(kernel.files[name].encode("utf-8", "surrogatepass"), name, "text/plain; charset=utf-8")


def _attachment(data: bytes, name: str, media_type: str) -> Response:
    """Saved, never shown: what is in it is not the service's own page."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(data, headers=headers, media_type=media_type)


def _attempt(service: Service, run_id: str, number: int) -> Attempt:
    attempt = service.record.attempt(f"{run_id}.{number}")
    if attempt is None:
        raise ProblemError("not-found", f"Run {run_id} has no round {number}.", "Its page lists those it has.")
    return attempt


# -- forms ---------------------------------------------------------------------------------------------------------


@router.post("/runs/{run_id}/reply")
async def reply(run_id: RunId, service: TheService, caller: Submitter, form: Form) -> Response:
    """A person's answer to the prompt that a run waits at; refused, it comes back with the page and what is wrong."""
    return await run_in_threadpool(_reply, run_id, service, caller, form)


def _reply(run_id: str, service: Service, caller: Caller, form: dict[str, str]) -> Response:
    text = form.get("text", "")
    try:
        if not text:
            raise ProblemError("invalid", "The reply is empty.")
        store_reply(service, caller, run_id, NewReply(text=text, key=form.get("key", "")[:200] or None))
    except ProblemError as error:
        problem = error.problem
    except ConflictError as error:
        problem = from_error(error)
    else:
        return RedirectResponse(f"/runs/{run_id}", 303)
    return _run(service, caller, run_id, problem.status, error=problem.detail, text=text)


@router.get("/login")
def login_page(service: TheService, request: Request, next: str = "/") -> Response:
    """Asks for a token, where one is needed."""
    if not service.settings.require_token:
        return RedirectResponse(onward(next), 303)
    return page("login.html", onward=onward(next), error="", signed_in=COOKIE in request.cookies)


@router.post("/login")
async def login(service: TheService, request: Request, form: Form) -> Response:
    """Keeps the token in a cookie that no script can read and no other site can make the browser send."""
    secret, after = form.get("token", "").strip(), onward(form.get("next", "/"))
    token = await run_in_threadpool(service.record.tokens.find, secret)
    if token is None:
        return page("login.html", 401, onward=after, error="The token is unknown or was revoked.", signed_in=False)
    answer = RedirectResponse(after, 303)
    flags: dict[str, Any] = {"httponly": True, "samesite": "strict", "secure": request.url.scheme == "https"}
    answer.set_cookie(COOKIE, secret, max_age=COOKIE_S, path="/", **flags)
    return answer


@router.post("/logout")
def logout() -> Response:
    """Forgets the token."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer
