"""Runs: made, listed, watched, answered, stopped and resumed; and their rounds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from cudaforge import wiring
from cudaforge.describe import call_output, pending_item, round_output, run_output
from cudaforge.errors import UsageError
from cudaforge.evaluation import Evaluation
from cudaforge.jobs import Answer, JobState, Once
from cudaforge.kernel import Language
from cudaforge.shapes import PendingItem, ReplyOutput, RoundOutput, RunFilter, RunOutput, to_json
from cudaforge.trace import PRESETS, Attempt, Budget, Call, RunFinished, RunSpec, RunState
from cudaforge_api.access import Caller, Reader, Submitter
from cudaforge_api.answers import FOREVER, IdempotencyKey, created, once_of, shaped
from cudaforge_api.events import EventStream
from cudaforge_api.problems import ProblemError, Responses, binary, documented
from cudaforge_api.routes.common import (
    READS,
    WRITES,
    After,
    Limit,
    Round,
    RunId,
    TheService,
    bounds_of,
    check_owner,
    evaluator_of,
    is_final,
    options_of,
    page,
    task_of,
    the_run,
)
from cudaforge_api.service import Service
from cudaforge_api.shapes import (
    RUN_ID,
    CallPage,
    EventPage,
    NewReply,
    NewRun,
    PendingPage,
    RunPage,
    RunStanding,
)
from cudaforge_profiling.types import Profile

router = APIRouter()
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", pattern=r"^[0-9]{1,18}$", description="Goes on after this event; browsers send it."),
]
STREAM: Responses = {
    200: {
        "description": "Events as they come: `data` is a StoredEvent as JSON, `event` its type, `id` its id.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "data": {"type": "string"},
                        "event": {"type": "string"},
                        "id": {"type": "string"},
                        "retry": {"type": "integer"},
                    },
                }
            }
        },
    }
}
ENDED: Responses = {204: {"description": "The run has ended and there is nothing new: do not connect again."}}


@router.post(
    "/runs",
    status_code=201,
    response_model=RunStanding,
    responses=documented(*WRITES, "not-found", "unusable", "key-reused", "limit-reached"),
    tags=["runs"],
)
def create_run(
    new: NewRun, request: Request, service: TheService, caller: Submitter, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submits a run. It waits in the queue until a worker takes it; `/runs/{id}/stream` tells how it goes on."""
    once = once_of(caller, idempotency_key, request, new)

    def carry_out() -> Answer:
        queue = service.record.queue
        spec = _spec(service, new)
        run = wiring.make_run(spec).model_copy(update={"state": RunState.QUEUED})
        body = to_json(RunStanding(id=run.id, state=run.state))
        answer = Answer(status=201, body=body, location=f"/api/v1/runs/{run.id}")
        return queue.submit(run, caller.id, bounds_of(service, caller), answer, once)

    return created(service, once, carry_out)


@router.get("/runs", response_model=RunPage, responses=documented(*READS), tags=["runs"])
def list_runs(
    service: TheService,
    caller: Reader,
    state: RunState | None = None,
    task: Annotated[str | None, Query(max_length=100, description="Name or id.")] = None,
    language: Language | None = None,
    model: Annotated[str | None, Query(max_length=400, description="Coder or Judge.")] = None,
    device: Annotated[str | None, Query(max_length=200)] = None,
    mine: Annotated[bool, Query(description="Only what this caller submitted.")] = False,
    text: Annotated[str, Query(max_length=100, description="Part of a task's, model's or run's name.")] = "",
    cursor: Annotated[str | None, Query(pattern=RUN_ID)] = None,
    limit: Limit = 50,
) -> Response:
    """Runs, newest first. The next page follows its cursor, whatever was added since."""
    wanted = RunFilter(
        state=state,
        task=task,
        language=language.value if language else None,
        model=model,
        device=device,
        submitter=caller.id if mine else None,
        text=text,
    )
    items, following = page(service.record.find_runs(wanted, before=cursor, limit=limit + 1), limit)
    return shaped(RunPage(items=items, next=following))


@router.get("/runs/{run_id}", response_model=RunOutput, responses=documented(*READS, "not-found"), tags=["runs"])
def get_run(run_id: RunId, service: TheService, _: Reader) -> Response:
    """One run: verdict, verified speedup, rounds, cost. `cudaforge show RUN --json` prints the same."""
    return shaped(run_output(service.record, the_run(service, run_id)))


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    response_model=RunStanding,
    responses=documented(*WRITES, "not-found", "conflict"),
    tags=["runs"],
)
def cancel_run(run_id: RunId, service: TheService, caller: Submitter) -> Response:
    """Stops a run: at once where no worker has it, else within a second or so. It can be resumed."""
    run = the_run(service, run_id)
    check_owner(service, caller, run_id)
    job = service.record.queue.job(run_id)
    idle = job is not None and job.state in (JobState.QUEUED, JobState.WAITING)
    if idle and wiring.is_driven(run_id, service.settings.home):
        raise ProblemError("conflict", f"Run {run_id} is under way in another process.", "Stop it where it runs.")
    if not service.record.queue.cancel(run_id):
        if not is_final(run.state):
            raise ProblemError("conflict", f"Run {run_id} was not started by this service.", "Stop it where it runs.")
        raise ProblemError("conflict", f"Run {run_id} has ended: it is {run.state.value}.")
    return _standing(service, run_id, 202)


@router.post(
    "/runs/{run_id}/resume",
    status_code=202,
    response_model=RunStanding,
    responses=documented(*WRITES, "not-found", "conflict", "limit-reached"),
    tags=["runs"],
)
def resume_run(run_id: RunId, service: TheService, caller: Submitter) -> Response:
    """Puts a run that was stopped, failed or cut off back into the queue. Nothing received is asked again."""
    run = the_run(service, run_id)
    check_owner(service, caller, run_id)
    if run.state is RunState.DONE:
        raise ProblemError("conflict", f"Run {run_id} is done.", "Start a new one with a larger budget.")
    if run.state is RunState.SUSPENDED and pending_item(service.record, run) is not None:
        raise ProblemError("conflict", f"Run {run_id} waits for {run.waiting_for}.", "POST its reply.")
    queue = service.record.queue
    job = queue.job(run_id)
    ours = job is not None and job.state in (JobState.QUEUED, JobState.RUNNING)
    if not ours and wiring.is_driven(run_id, service.settings.home):
        raise ProblemError("conflict", f"Run {run_id} is under way in another process.")
    queue.requeue(run, caller.id, bounds_of(service, caller), "resumed")
    return _standing(service, run_id, 202)


@router.get(
    "/runs/{run_id}/pending",
    response_model=PendingItem,
    responses=documented(*READS, "not-found", "conflict"),
    tags=["replies"],
)
def get_pending(run_id: RunId, service: TheService, _: Reader) -> Response:
    """The prompt that a run with a `manual:` model waits at."""
    run = the_run(service, run_id)
    item = pending_item(service.record, run) if run.state is RunState.SUSPENDED else None
    if item is None:
        raise ProblemError("conflict", f"Run {run_id} waits for nothing.")
    return shaped(item)


@router.get("/pending", response_model=PendingPage, responses=documented(*READS), tags=["replies"])
def list_pending(service: TheService, _: Reader) -> Response:
    """All prompts that wait for a person, the oldest first."""
    record = service.record
    runs = [run for call in record.pending() if (run := record.run(call.run_id)) and run.state is RunState.SUSPENDED]
    items = [item for run in runs if (item := pending_item(record, run)) is not None]
    return shaped(PendingPage(items=tuple(items)))


@router.post(
    "/runs/{run_id}/reply",
    status_code=201,
    response_model=ReplyOutput,
    responses=documented(*WRITES, "not-found", "conflict", "key-reused"),
    tags=["replies"],
)
def reply_to_run(
    run_id: RunId,
    new: NewReply,
    request: Request,
    service: TheService,
    caller: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answers the prompt that a run waits at; the run then goes on by itself."""
    once = once_of(caller, idempotency_key, request, new)
    return created(service, once, lambda: store_reply(service, caller, run_id, new, once))


def store_reply(service: Service, caller: Caller, run_id: str, new: NewReply, once: Once | None = None) -> Answer:
    """Stores a person's reply, for the API and for the page with the form. Raises ProblemError and ConflictError."""
    the_run(service, run_id)
    check_owner(service, caller, run_id)
    if len(new.text.encode("utf-8", "surrogatepass")) > service.settings.limits.reply:
        raise ProblemError("too-large", f"The reply is larger than {service.settings.limits.reply} bytes.")
    if not new.text.strip():
        raise ProblemError("invalid", "The reply is empty.")

    def answer(call: Call) -> Answer:
        shown = ReplyOutput(run=run_id, key=call.key, role=call.role.value, characters=len(new.text))
        return Answer(status=201, body=to_json(shown), location=f"/api/v1/runs/{run_id}")

    return service.record.queue.reply_once(run_id, new.text, new.key, once, answer)


# -- rounds --------------------------------------------------------------------------------------------------------


@router.get(
    "/runs/{run_id}/attempts/{round}",
    response_model=RoundOutput,
    responses=documented(*READS, "not-found"),
    tags=["rounds"],
)
def get_round(run_id: RunId, round: Round, service: TheService, _: Reader) -> Response:
    """One round: the plan, the kernel, the diff against the one it was made from, what the machine found."""
    run = the_run(service, run_id)
    try:
        return shaped(round_output(service.record, run, round))
    except UsageError as error:
        raise ProblemError("not-found", error.message) from None


@router.get(
    "/runs/{run_id}/attempts/{round}/calls",
    response_model=CallPage,
    responses=documented(*READS, "not-found"),
    tags=["rounds"],
)
def get_calls(run_id: RunId, round: Round, service: TheService, _: Reader) -> Response:
    """The round's questions to Coder and Judge: the exact prompts and replies."""
    attempt = _attempt(service, run_id, round)
    calls = service.record.calls(run_id, attempt.id)
    return shaped(CallPage(items=tuple(call_output(call) for call in calls)))


@router.get(
    "/runs/{run_id}/attempts/{round}/evaluation",
    response_model=Evaluation,
    responses=documented(*READS, "not-found"),
    tags=["rounds"],
)
def get_evaluation_of(run_id: RunId, round: Round, service: TheService, _: Reader) -> Response:
    """The verdict on the round's kernel, with all raw times."""
    attempt = _attempt(service, run_id, round)
    found = service.record.result(attempt.evaluation) if attempt.evaluation else None
    if not isinstance(found, Evaluation):
        raise ProblemError("not-found", f"Round {round} of {run_id} has no evaluation (yet).")
    return shaped(found)


@router.get(
    "/runs/{run_id}/attempts/{round}/profile",
    response_model=Profile,
    responses=documented(*READS, "not-found"),
    tags=["rounds"],
)
def get_profile_of(run_id: RunId, round: Round, service: TheService, _: Reader) -> Response:
    """What the profiler saw of the round's kernel."""
    return shaped(_profile(service, run_id, round)[1])


@router.get(
    "/runs/{run_id}/attempts/{round}/profile/report",
    response_class=Response,
    responses=documented(
        *READS,
        "not-found",
        "collected",
        more=binary("application/octet-stream"),
    ),
    tags=["rounds"],
)
def get_report_of(run_id: RunId, round: Round, service: TheService, _: Reader) -> Response:
    """The profiler's report file (.ncu-rep), for Nsight Compute."""
    key, _profile_found = _profile(service, run_id, round)
    report = service.record.report(key)
    if report is None:
        raise ProblemError("not-found", f"The profile of round {round} has no report.")
    if report.data is None:
        raise ProblemError("collected", "The report was deleted to free space; its metrics are still here.")
    headers = {
        "Content-Disposition": f'attachment; filename="{run_id}-{round}.ncu-rep"',
        "ETag": f'"{report.digest}"',
        "Cache-Control": FOREVER,
    }
    return Response(report.data, headers=headers, media_type="application/octet-stream")


# -- events --------------------------------------------------------------------------------------------------------


@router.get(
    "/runs/{run_id}/events", response_model=EventPage, responses=documented(*READS, "not-found"), tags=["events"]
)
def run_events(
    run_id: RunId,
    service: TheService,
    _: Reader,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """Events of a run, for clients that poll."""
    the_run(service, run_id)
    return _event_page(service, run_id, after, limit)


@router.get("/events", response_model=EventPage, responses=documented(*READS), tags=["events"])
def all_events(
    service: TheService, _: Reader, after: After = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> Response:
    """Events of all runs, for clients that poll."""
    return _event_page(service, None, after, limit)


@router.get(
    "/runs/{run_id}/stream",
    response_class=Response,
    responses=documented(
        *READS,
        "not-found",
        "limit-reached",
        more=STREAM | ENDED,
    ),
    tags=["events"],
)
def stream_run(
    run_id: RunId, service: TheService, _: Reader, after: After = 0, last_event_id: LastEventId = None
) -> Response:
    """Server-sent events of one run, from the first or after the one named; ends with the run."""
    run = the_run(service, run_id)
    start = int(last_event_id) if last_event_id else after
    newest = service.record.last_event(run_id)
    if newest and newest.id <= start and is_final(run.state) and isinstance(newest.event, RunFinished):
        return Response(status_code=204)
    return EventStream(service.feed, run_id, start, service.settings.limits.send_s)


@router.get(
    "/stream",
    response_class=Response,
    responses=documented(*READS, "limit-reached", more=STREAM),
    tags=["events"],
)
def stream_all(
    service: TheService,
    _: Reader,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="From now on where it is missing.")] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Server-sent events of all runs. It never ends of itself."""
    start = int(last_event_id) if last_event_id else after
    start = service.record.newest_event() if start is None else start
    return EventStream(service.feed, None, start, service.settings.limits.send_s)


# -- within --------------------------------------------------------------------------------------------------------


def _event_page(service: Service, run_id: str | None, after: int, limit: int) -> Response:
    items = tuple(service.record.events(run_id, after=after, limit=limit))
    return shaped(EventPage(items=items, last=items[-1].id if items else after))


def _standing(service: Service, run_id: str, status: int) -> Response:
    run = the_run(service, run_id)
    return shaped(RunStanding(id=run.id, state=run.state), status)


def _attempt(service: Service, run_id: str, number: int) -> Attempt:
    the_run(service, run_id)
    attempt = service.record.attempt(f"{run_id}.{number}")
    if attempt is None:
        raise ProblemError("not-found", f"Run {run_id} has no round {number}.")
    return attempt


def _profile(service: Service, run_id: str, number: int) -> tuple[str, Profile]:
    attempt = _attempt(service, run_id, number)
    found = service.record.result(attempt.profile) if attempt.profile else None
    if attempt.profile is None or not isinstance(found, Profile):
        raise ProblemError("not-found", f"Round {number} of {run_id} has no profile (yet).")
    return attempt.profile, found


def _spec(service: Service, new: NewRun) -> RunSpec:
    """The run that a request asks for, within the service's limits. Raises UsageError, or a problem."""
    limits = service.settings.limits
    if new.budget.rounds > limits.rounds:
        raise ProblemError("unusable", f"A run has at most {limits.rounds} rounds here.", "Ask for fewer.")
    coder = _model(service, new.coder)
    judge = _model(service, new.judge) if new.judge else coder
    networked = wiring.is_networked(coder) or wiring.is_networked(judge)
    budget = Budget(
        rounds=new.budget.rounds,
        usd=_within("usd", new.budget.usd, limits.usd if networked else None),
        seconds=_within("seconds", new.budget.seconds, limits.seconds),
        target_speedup=new.budget.target_speedup,
        patience=new.budget.patience,
    )
    preset = PRESETS[new.preset.name].changed(**new.preset.model_dump(exclude={"name"}))
    return RunSpec(
        task=task_of(service, new.task),
        language=new.language,
        coder=coder,
        judge=judge,
        evaluator=evaluator_of(service, new.evaluator, new.language),
        budget=budget,
        preset=preset,
        options=options_of(new.options),
        model_settings=new.model_settings.model_dump(exclude_none=True),
    )


def _within(name: str, asked: float | None, most: float | None) -> float | None:
    if most is not None and asked is not None and asked > most:
        raise ProblemError("unusable", f"A run may take {name} {most:g} at most here.", "Ask for less.")
    return most if asked is None else asked


def _model(service: Service, name: str) -> str:
    """The model as the core names it. A recording is named by its folder here, and never by a path."""
    settings = service.settings
    provider, rest = wiring.provider_of(name)
    if not settings.offers(name):
        offered = ", ".join(settings.models)
        raise ProblemError("unusable", f"Model {name!r} is not offered here.", f"There are: {offered}.")
    if provider == "manual" and name != "manual:":
        raise ProblemError("unusable", f"Model {name!r} is unknown.", "A person is asked as `manual:`.")
    return f"recorded:{settings.recording(rest)}" if provider == "recorded" else name
