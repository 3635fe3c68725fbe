"""START HERE: the state machine that turns a task into a verified, faster kernel.

    baseline -> choose -+-> draft ------------------------+-> evaluate -> choose
                        +-> diagnose -> repair -----------+
                        +-> profile -> advise -> revise --+
                        +-> (a person's edit) ------------+
                        +-> verify -> end

`choose` asks the SearchPolicy what to do next: draft a kernel, repair one that failed, revise one that passed, or
stop and verify the best. `draft`, `repair` and `revise` are the Coder, `diagnose` and `advise` the Judge. A kernel
that fails, a reply that cannot be read and a Judge without advice are rounds of the run, never its end. In a session
(session.py) a person chooses: `act` runs single nodes, on the same run, with the same journal.

What makes `kill -9` harmless:
- LangGraph's state holds ids only, and its checkpoint is on disk before the next node begins (durability "sync").
  The store holds everything else, so even a lost checkpoint file costs nothing: the run walks through the nodes
  again and finds their work done.
- A node may run again at any time: the Journal (journal.py) looks in the store before it asks, measures or tells.
- A node that has to wait (a `manual:` reply, a spooled evaluation) interrupts the graph. Driving the run again runs
  that node again, which finds what it waited for in the store, or waits on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cudaforge.errors import (
    ConflictError,
    CudaForgeError,
    ReplyError,
    StoreError,
    Suspended,
    TaskError,
    UsageError,
)
from cudaforge.journal import Journal
from cudaforge.nodes import Context, Nodes, State
from cudaforge.trace import Action, Run, RunFinished, RunResumed, RunStarted, RunState, RunSuspended

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


__all__ = ["Context", "Nodes", "State", "act", "build", "drive", "is_driven", "started"]

_T = TypeVar("_T")

LOCKED_S = 10.0
"""How long the checkpoints' database may be locked by other runs."""


def build(nodes: Nodes, checkpointer: Any) -> CompiledStateGraph[State, None, State, State]:
    """The compiled state machine: the picture above."""
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    for node in (
        nodes.baseline,
        nodes.choose,
        nodes.draft,
        nodes.diagnose,
        nodes.repair,
        nodes.profile,
        nodes.advise,
        nodes.revise,
        nodes.evaluate,
        nodes.verify,
    ):
        graph.add_node(node.__name__, _interruptible(node, nodes.journal))

    def way(state: State) -> str:
        if not state["attempt"]:
            return "verify"
        attempt = nodes.attempt(state)
        # A session may have left it written: nobody is to be asked about it any more.
        return "evaluate" if attempt.kernel is not None else _WAYS[attempt.action]

    graph.add_edge(START, "baseline")
    graph.add_edge("baseline", "choose")
    graph.add_conditional_edges("choose", way, ["draft", "diagnose", "profile", "evaluate", "verify"])
    graph.add_edge("diagnose", "repair")
    graph.add_edge("profile", "advise")
    graph.add_edge("advise", "revise")
    for written in ("draft", "repair", "revise"):
        graph.add_edge(written, "evaluate")
    graph.add_edge("evaluate", "choose")
    graph.add_edge("verify", END)
    return graph.compile(checkpointer=checkpointer)


_WAYS = {Action.DRAFT: "draft", Action.REPAIR: "diagnose", Action.REVISE: "profile", Action.EDIT: "evaluate"}


async def drive(
    run_id: str, context: Context, checkpoints: Path, cancelled_as: Callable[[], RunState] = lambda: RunState.STOPPED
) -> Run:
    """Starts a stored run, or continues it from wherever it was cut off, and returns it as it then stands.

    `checkpoints` is LangGraph's database, in a file of its own. The returned run is done, suspended (what it waits
    for is in `waiting_for`) or, where this task was cancelled, what `cancelled_as` says: stopped, or queued where
    somebody else is to go on with it. A cancellation ends here.

    Raises:
        ModelError, EvaluatorError, StoreError: after the run was stored as failed; it can be driven again once the
            cause is mended. StoreError also where there is no such run or another process drives it.
    """
    with _sole_driver(checkpoints, run_id):
        journal = Journal(context.store, run_id)
        nodes, run = Nodes(context, journal), journal.run
        if run.state is RunState.DONE:
            nodes.done()
            return run
        try:
            with _under_way(journal, checkpoints, cancelled_as):
                if journal.has(begun := started(run)):
                    journal.emit(RunResumed(run_id=run.id))
                journal.emit(begun)
                await _walk(nodes, checkpoints)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()  # it ends here: the caller gets the stopped run
        return journal.run


async def act(run_id: str, context: Context, checkpoints: Path, work: Callable[[Nodes], Awaitable[_T]]) -> _T:
    """One step of a session: single nodes, chosen by a person, on a stored run. It is stored as stopped afterwards.

    The graph's checkpoint goes, since it would lead a run that is driven on to a node of an older attempt; from the
    store the graph finds where the run stands.

    Raises:
        ConflictError: the run is done, or `work` says that the step does not fit; nothing has changed.
        UsageError, KernelError, ReplyError: as `work` raises them; the run rests as before.
        Suspended: a reply or an evaluation comes later; the run is stored as suspended, the same step finds it.
        ModelError, EvaluatorError, StoreError: as `drive`. A cancellation stores the run as stopped.
    """
    with _sole_driver(checkpoints, run_id):
        journal = Journal(context.store, run_id)
        nodes, run = Nodes(context, journal), journal.run
        if run.state is RunState.DONE:
            raise ConflictError(f"Run {run_id} is done.", "branch() makes a new one that goes on from its head.")
        with _under_way(journal, checkpoints, lambda: RunState.STOPPED, mild=(UsageError, ReplyError)):
            journal.emit(started(run))
            await _forget(run_id, checkpoints)
            try:
                done = await work(nodes)
            except Suspended as waiting:
                _suspend(journal, waiting)
                raise
        if journal.run.state is RunState.RUNNING:
            journal.save_run(state=RunState.STOPPED)
        return done


def started(run: Run) -> RunStarted:
    """What is said once, when a run begins."""
    spec = run.spec
    return RunStarted(
        run_id=run.id,
        task=spec.task.name,
        language=spec.language.value,
        coder=spec.coder,
        judge=spec.judge,
        evaluator=spec.evaluator,
        rounds=spec.budget.rounds,
    )


@contextmanager
def _under_way(
    journal: Journal,
    checkpoints: Path,
    cancelled_as: Callable[[], RunState],
    mild: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Stores the run as running, and how it comes to rest where what is inside is cancelled or raises. After a `mild`
    error it rests as before: a step that a person mistook is no failure of the run."""
    before = journal.run
    journal.save_run(state=RunState.RUNNING, waiting_for="", error="")
    try:
        yield
    except asyncio.CancelledError:
        if journal.run.state in (RunState.RUNNING, RunState.QUEUED):
            state = cancelled_as()
            journal.save_run(state=state)
            if state is RunState.STOPPED:
                journal.emit(RunFinished(run_id=before.id, state=state, reason="cancelled"))
        raise
    except Suspended:
        raise
    except Exception as error:
        if isinstance(error, mild) and not isinstance(error, TaskError):
            # Stored as running, it was cut off: nobody else drives it.
            state = RunState.STOPPED if before.state is RunState.RUNNING else before.state
            journal.save_run(state=state, waiting_for=before.waiting_for, error=before.error)
            raise
        if isinstance(error, sqlite3.Error):  # the store's own are StoreErrors
            hint = f"Delete it and resume: the run is in the store, and goes on from there. ({error})"
            error = StoreError(f"The checkpoints {checkpoints} cannot be used.", hint)
        reason = error.message if isinstance(error, CudaForgeError) else f"{type(error).__name__}: {error}"
        with suppress(StoreError):  # if it is the store that broke, the first error is the one to show
            journal.save_run(state=RunState.FAILED, error=reason)
            journal.emit(RunFinished(run_id=before.id, state=RunState.FAILED, reason=reason))
        raise error


async def _forget(run_id: str, checkpoints: Path) -> None:
    """Deletes LangGraph's checkpoint of a run. The store is the record."""
    if checkpoints.exists():
        _forbid_tracing()
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(checkpoints)) as saver:
            await saver.adelete_thread(run_id)


async def _walk(nodes: Nodes, checkpoints: Path) -> None:
    """Runs the graph from its last checkpoint, or from the start where there is none."""
    _forbid_tracing()
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langsmith import tracing_context

    run = nodes.journal.run
    config = RunnableConfig(configurable={"thread_id": run.id}, recursion_limit=20 + 8 * run.spec.budget.rounds)
    await asyncio.to_thread(_ready, checkpoints)
    with tracing_context(enabled=False):
        async with AsyncSqliteSaver.from_conn_string(str(checkpoints)) as saver:
            graph = build(nodes, saver)
            # None resumes: after an interrupt, an error or a kill. Without a checkpoint there is nothing to resume
            # (a kill may come before the first), and LangGraph would raise EmptyInputError.
            begun = await saver.aget_tuple(config) is not None
            await graph.ainvoke(None if begun else State(run=run.id, attempt=""), config, durability="sync")


def _ready(checkpoints: Path) -> None:
    """Has the database in WAL mode before LangGraph asks for it: of several runs that begin with a new one, all but the
    one that switches are told that it is locked, and no time-out helps."""
    until = time.monotonic() + LOCKED_S
    while True:
        try:
            with closing(sqlite3.connect(checkpoints, timeout=LOCKED_S)) as database:
                database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


class _Node(Protocol):
    def __call__(self, state: State) -> Awaitable[State]: ...


def _interruptible(node: _Node, journal: Journal) -> _Node:
    """The node as LangGraph runs it: where it has to wait, the run is stored as suspended and the graph interrupted."""

    async def run(state: State) -> State:
        from langgraph.types import interrupt

        try:
            return await node(state)
        except Suspended as waiting:
            _suspend(journal, waiting)
            # Raises. A resumed graph gets no value for it, so it raises again for as long as the node has to wait.
            interrupt(waiting.waiting_for)
            raise

    return run


def _suspend(journal: Journal, waiting: Suspended) -> None:
    journal.save_run(state=RunState.SUSPENDED, waiting_for=waiting.waiting_for)
    journal.emit(RunSuspended(run_id=journal.run_id, waiting_for=waiting.waiting_for, message=waiting.message))


@contextmanager
def _sole_driver(checkpoints: Path, run_id: str) -> Iterator[None]:
    """Holds the run for this process: a second driver would take a call in flight for one that was cut off.

    An flock beside the checkpoints; the kernel drops it with the process, however that ends.
    """
    checkpoints.parent.mkdir(parents=True, exist_ok=True)
    path = checkpoints.with_name(f"{run_id}.lock")
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(path.stat(), os.fstat(handle))
        except (BlockingIOError, FileNotFoundError):  # held, or given up and removed since it was opened
            held = False
        if not held:
            raise StoreError(f"Run {run_id} is under way in another process.", "Wait for it, or stop it first.")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def is_driven(checkpoints: Path, run_id: str) -> bool:
    """Whether some process drives this run now."""
    try:
        handle = os.open(checkpoints.with_name(f"{run_id}.lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:  # shared, and let go at once: two who look do not take each other for a driver
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _forbid_tracing() -> None:
    """Turns LangSmith off for this process and its children, before LangGraph is imported: nothing is sent out."""
    for name in ("TRACING", "TRACING_V2"):
        for prefix in ("LANGSMITH", "LANGCHAIN"):
            os.environ[f"{prefix}_{name}"] = "false"
