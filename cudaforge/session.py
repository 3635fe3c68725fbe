"""Session: a run whose steps a person chooses, one at a time. A thin door over the graph's nodes.

    session = cf.Session("task.py", coder="openai:MODEL")
    session.draft(); session.evaluate()
    print(session.judge())
    session.revise("try a single pass over the row"); session.evaluate()
    session.edit(my_source); session.evaluate()
    result = session.finish()

What each step does is the node of graph.py; nothing of the loop is written down here a second time. After every step
all is in the store: another process goes on with `cf.Session.resume(run_id)`, `cudaforge resume` with the automatic
loop, and the viewer shows a session as it shows any run. Between steps it is stored as stopped.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cudaforge import python, wiring
from cudaforge.background import Background
from cudaforge.errors import ConflictError, EvaluatorError, ReplyError, StoreError, Suspended, UsageError
from cudaforge.evaluation import EvaluateOptions, Evaluation
from cudaforge.graph import act
from cudaforge.inuse import UsableKernel
from cudaforge.kernel import Kernel, Language
from cudaforge.nodes import Nodes, State
from cudaforge.ports import Evaluator, Store
from cudaforge.results import RunResult
from cudaforge.task import Task
from cudaforge.trace import Action, Attempt, CallState, Diagnosis, Plan, Role, Run, RunState
from cudaforge_profiling.types import Profile

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cudaforge.store.sqlite import SqliteStore

_T = TypeVar("_T")


class Session:
    """One task, worked on step by step, with a Coder, a Judge, or oneself.

    `head` is the attempt that the next step builds on: the one evaluated last, until `undo` or a branch says
    otherwise. At most one attempt is open: advised on or written, and not evaluated yet. Steps block, also inside of
    a notebook's event loop; Ctrl-C stores where the step stands and raises KeyboardInterrupt.

    Every step raises ConflictError where it does not fit where the session stands (the hint says what does), and
    ModelError, EvaluatorError or StoreError for a failure of model or machine; the same step can then be taken again.
    A step that needs a model which is `manual:` raises Suspended.
    """

    def __init__(
        self,
        task: nn.Module | Task | Path | str | None = None,
        inputs: torch.Tensor | Sequence[Any] | None = None,
        *,
        run_id: str | None = None,
        coder: str = "manual:",
        judge: str | None = None,
        language: str | Language | None = None,
        evaluator: str = "local",
        options: EvaluateOptions | None = None,
        base_url: str | None = None,
        model_settings: Mapping[str, Any] | None = None,
        init: Sequence[Any] | Mapping[str, Any] | None = None,
        task_file: Path | str | None = None,
        home: Path | str | None = None,
    ) -> None:
        """Begins a session on a task, which is stored as a new run; or, with `run_id`, opens a stored run again.

        Arguments are those of `cf.optimize`. Without a Coder (the default) you are the Coder: `edit` takes your
        sources, `evaluate` and `profile` need no model. A run that is done can be opened, looked at and branched.

        Raises:
            UsageError, TaskError: what was given is not usable; nothing is stored.
        """
        self._home = wiring.resolve_home(Path(home) if home is not None else None)
        if (task is None) == (run_id is None):
            raise UsageError(
                "A session has either a task or a run_id.", "cf.Session(task), or cf.Session.resume(run_id)."
            )
        with self._store() as store:
            if task is None:
                self.id = wiring.find_run(store, str(run_id)).id
            else:
                spec = wiring.make_spec(
                    python.task_of(task, inputs, init, self._home, task_file),
                    coder=coder,
                    judge=judge,
                    language=language,
                    evaluator=evaluator,
                    options=options,
                    settings=model_settings,
                    base_url=base_url,
                )
                self.id = python.new_run(store, spec, state=RunState.STOPPED, head="").id
        self._works: tuple[Background, Evaluator] | None = None
        self._closing: Callable[[], object] = lambda: None

    @classmethod
    def resume(cls, run_id: str = "last", *, home: Path | str | None = None) -> Session:
        """Opens a stored run again, in whatever process began it; `run_id` may be a beginning, or `last`."""
        return cls(run_id=run_id, home=home)

    # -- what there is ----------------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run as stored now."""
        return self.result.run

    @property
    def task(self) -> Task:
        """What is worked on."""
        return self.run.spec.task

    @property
    def head(self) -> Attempt | None:
        """The evaluated attempt that the next step builds on; None where there is none, or after the last undo."""
        with self._store() as store:
            return _head(store, self.id)

    @property
    def history(self) -> tuple[Attempt, ...]:
        """Every attempt, in order, those that were undone included."""
        return self.result.attempts

    @property
    def result(self) -> RunResult:
        """The same run with its kernels, evaluations, profiles, tables and pictures."""
        return RunResult(self.id, self._home)

    # -- steps ------------------------------------------------------------------------------------------------

    def draft(self) -> Attempt:
        """The Coder writes a first kernel from the task alone. Returns the open attempt; `evaluate` comes next.

        Where no reply could be read, the attempt is closed and its `reply_error` says why.
        """

        async def work(nodes: Nodes) -> Attempt:
            attempt = _unwritten(nodes)
            if attempt is not None and attempt.action is not Action.DRAFT:
                raise _open_already(attempt)
            await nodes.baseline(_state(nodes))
            return await _written(nodes, attempt or nodes.open(Action.DRAFT, None), nodes.draft)

        return self._act(work)

    def judge(self) -> Plan | Diagnosis:
        """The Judge reads the head: its profile where it passed, and plans one change; else what went wrong.

        The advice opens the next attempt and is kept there: asked again, it is given again.
        Raises ReplyError where the Judge's reply cannot be read.
        """

        async def work(nodes: Nodes) -> Plan | Diagnosis:
            attempt = _unwritten(nodes)
            if attempt is not None and attempt.advice is not None:
                return attempt.advice
            attempt = attempt or nodes.open_on(_needed_head(nodes).id)
            if attempt.action not in (Action.REVISE, Action.REPAIR):
                raise _open_already(attempt)
            ways = (nodes.profile, nodes.advise) if attempt.action is Action.REVISE else (nodes.diagnose,)
            for way in ways:
                await way(_state(nodes, attempt))
            advice = nodes.attempt(_state(nodes, attempt)).advice
            if advice is None:
                raise ReplyError(
                    "The Judge's reply cannot be read.", "revise() goes on without; undo(), then judge(), asks anew."
                )
            return advice

        return self._act(work)

    def revise(self, hint: str = "") -> Attempt:
        """The Coder makes the head faster where it passed, and mends it where it did not. Returns the open attempt.

        It sees the Judge's advice where `judge` was asked before, and `hint`, your own words to it.
        """

        async def work(nodes: Nodes) -> Attempt:
            attempt = _unwritten(nodes) or nodes.open_on(_needed_head(nodes).id)
            if attempt.action not in (Action.REVISE, Action.REPAIR):
                raise _open_already(attempt)
            calls = nodes.store.calls(nodes.journal.run_id)
            asked = any(
                c.attempt_id == attempt.id and c.role is Role.CODER and c.state in (CallState.DONE, CallState.WAITING)
                for c in calls
            )
            if hint and hint != attempt.hint and asked:  # a question that was put already keeps its words
                raise ConflictError(
                    "The Coder was asked already, without this hint.", "revise() goes on, undo() asks anew."
                )
            if hint and not asked:
                attempt = attempt.model_copy(update={"hint": hint})
                nodes.store.save_attempt(attempt)
            return await _written(nodes, attempt, nodes.revise if attempt.action is Action.REVISE else nodes.repair)

        return self._act(work)

    def edit(self, source: str | Mapping[str, str] | Kernel | UsableKernel) -> Attempt:
        """You are the Coder. Returns the open attempt; `evaluate` comes next.

        `source` is the text of the kernel's main file (kernel.cu, kernel.cpp, or model.py), files by name, or a whole
        Kernel. Files that are not given are those of the open attempt, else of the head. An open attempt that was
        written is put aside, one that the Judge advised on becomes yours.

        Raises:
            UsageError, KernelError: the sources do not make a kernel of the session's language.
        """

        async def work(nodes: Nodes) -> Attempt:
            attempt, head = _open(nodes), _head(nodes.store, nodes.journal.run_id)
            shown = attempt if attempt is not None and attempt.kernel else head
            base = nodes.store.kernel(shown.kernel) if shown is not None and shown.kernel else None
            kernel = _kernel(source, nodes.spec.language, base)
            nodes.store.save_kernel(kernel)
            if attempt is not None and attempt.kernel:
                nodes.journal.save_run(head=head.id if head else "")  # before: a kill must not leave a closed one
                nodes.close(attempt)
                attempt = None
            if attempt is None:
                return nodes.open(Action.EDIT, head.id if head else None, kernel=kernel.id)
            attempt = attempt.model_copy(update={"action": Action.EDIT, "kernel": kernel.id})
            nodes.store.save_attempt(attempt)
            return attempt

        return self._act(work)

    def evaluate(self) -> Evaluation:
        """Builds, checks and times the open attempt's kernel, which then is the head, whatever the verdict.

        Times are in microseconds a call. A kernel that was evaluated before keeps its evaluation.
        """

        async def work(nodes: Nodes) -> Evaluation:
            attempt = _open(nodes)
            if attempt is None or attempt.kernel is None:
                raise ConflictError("There is no kernel to evaluate.", "draft(), revise() or edit() first.")
            await nodes.baseline(_state(nodes))
            nodes.journal.save_run(head=attempt.id)  # before: a kill afterwards must not leave the old one
            await nodes.evaluate(_state(nodes, attempt))
            return _result(nodes, nodes.attempt(_state(nodes, attempt)).evaluation, Evaluation)

        return self._act(work)

    def profile(self) -> Profile:
        """Looks at the head, which has to have passed, with the profiler; once, then it is given again."""

        async def work(nodes: Nodes) -> Profile:
            head = _needed_head(nodes)
            if not head.passed:
                raise ConflictError(f"Round {head.round} did not pass, so it has no profile.", "revise() or edit() it.")
            await nodes.look_at(head)
            key = nodes.attempt(_state(nodes, head)).profile
            if key is None:
                raise EvaluatorError(
                    f"Round {head.round} could not be profiled, through no fault of the kernel.",
                    "`cudaforge show` has the reason among its notes; `cudaforge doctor` shows what a profile needs.",
                )
            return _result(nodes, key, Profile)

        return self._act(work)

    def undo(self) -> Attempt | None:
        """Takes the last step back: closes an open attempt without verdict, else makes the head's base the head.

        Nothing is deleted; `history` still has it. Returns the head, None where there is none any more.
        """

        async def work(nodes: Nodes) -> Attempt | None:
            store, run_id = nodes.store, nodes.journal.run_id
            attempt, head = _open(nodes), _head(store, run_id)
            if attempt is not None:
                nodes.journal.save_run(head=head.id if head else "")
                nodes.close(attempt)
            elif head is None:
                raise ConflictError("There is nothing to undo.", "draft() or edit() begins.")
            else:
                nodes.journal.save_run(head=head.base or "")
            return _head(store, run_id)

        return self._act(work)

    def branch(self) -> Session:
        """A session of its own, a new run, that begins with copies of this one's line up to the head.

        Nothing is asked or measured again, and neither of the two sees what the other does from here on. Its
        `run.branched_from` names the head. A run that is done can be branched, too.
        """
        from cudaforge.branch import branch

        with self._store() as store:
            head, run = _head(store, self.id), store.run(self.id)
            if head is None or run is None:
                raise ConflictError("There is no evaluated attempt to branch from.", "cf.Session(task) begins anew.")
            return Session(run_id=branch(store, run, head).id, home=self._home)

    def finish(self) -> RunResult:
        """Verifies the fastest kernel that passed, in fresh processes, and ends the run. Returns its result.

        Attempts that were undone after they were evaluated take part: they are right and measured.
        """

        async def work(nodes: Nodes) -> None:
            attempt = _open(nodes)
            if attempt is not None:
                if attempt.kernel is not None:
                    raise _open_already(attempt)
                nodes.close(attempt)
            await nodes.baseline(_state(nodes))
            await nodes.verify(_state(nodes))

        self._act(work)
        self.close()
        return self.result

    def optimize(self, rounds: int) -> RunResult:
        """Hands over to the automatic loop for at most `rounds` more attempts, the first of them on the head.

        Other limits of the run (money, time, target, patience) stay as they are. UsageError where `rounds` is below 1.
        It ends with the verification; suspended, stopped and failed as in `cf.optimize`.
        """

        if rounds < 1:
            raise UsageError(f"{rounds} rounds cannot be made.", "Give 1 or more, or finish().")

        async def work(nodes: Nodes) -> None:
            count = len(nodes.store.attempts(nodes.journal.run_id))
            limit = python.budget(**{**nodes.spec.budget.model_dump(), "rounds": count + rounds})
            nodes.journal.save_run(spec=nodes.spec.model_copy(update={"budget": limit}))

        self._act(work)
        background, evaluator = self._workshop()

        async def drive() -> None:
            with self._store() as store:
                await wiring.resume(self.id, store, self._home, evaluator)

        background.run(drive)
        return self.result

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the evaluator's processes. The session stays: another step starts them again. Idempotent."""
        self._closing()
        self._works, self._closing = None, lambda: None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        run, head = self.run, self.head
        on = f"head: round {head.round}, {head.verdict}" if head else "no head"
        return f"Session({run.id}, {run.spec.task.name}, {run.state.value}, {len(self.history)} attempts, {on})"

    def _repr_html_(self) -> str:
        html: str = import_module("cudaforge.notebook.display").html(self)
        return html

    # -- within -----------------------------------------------------------------------------------------------

    def _act(self, work: Callable[[Nodes], Awaitable[_T]]) -> _T:
        """Takes one step."""
        background, evaluator = self._workshop()

        async def step() -> _T:
            with self._store() as store:
                run = wiring.find_run(store, self.id)
                context = wiring.make_context(run, store, evaluator)
                return await act(run.id, context, self._home / wiring.CHECKPOINTS, work)

        try:
            return background.run(step)
        except Suspended as waiting:
            hint = (
                f"No model answers here. Answer with `cudaforge reply {self.id}` and take the same step again, "
                "write the kernel yourself with edit(source), or begin one with coder=... and judge=..."
            )
            raise Suspended(waiting.message, hint, waiting_for=waiting.waiting_for) from None

    def _workshop(self) -> tuple[Background, Evaluator]:
        """The thread that steps are taken in, and the evaluator, which stays warm between them."""
        if self._works is None:
            self._works = Background(), wiring.make_evaluator(self.run.spec.evaluator, self._home, patient=True)
            closing = weakref.finalize(self, _release, *self._works)
            closing.atexit = False  # its processes end with this one
            self._closing = closing
        return self._works

    def _store(self) -> AbstractContextManager[SqliteStore]:
        return closing(wiring.open_record(self._home))


def _release(background: Background, evaluator: Evaluator) -> None:
    with suppress(RuntimeError):  # collected in the very thread that would have to end
        background.run(evaluator.close)
        background.close()


def _state(nodes: Nodes, attempt: Attempt | None = None) -> State:
    return State(run=nodes.journal.run_id, attempt=attempt.id if attempt else "")


def _open(nodes: Nodes) -> Attempt | None:
    """The attempt that is not finished."""
    attempts = nodes.store.attempts(nodes.journal.run_id)
    return attempts[-1] if attempts and attempts[-1].finished is None else None


def _unwritten(nodes: Nodes) -> Attempt | None:
    """The open attempt, for a step that has it written. Raises ConflictError where it was written already."""
    attempt = _open(nodes)
    if attempt is not None and attempt.kernel is not None:
        raise _open_already(attempt)
    return attempt


def _open_already(attempt: Attempt) -> ConflictError:
    if attempt.kernel is None:
        return ConflictError(
            f"Round {attempt.round} is open: {attempt.action.value}.", "Take that step again, or undo()."
        )
    return ConflictError(f"Round {attempt.round} is written and not evaluated.", "evaluate() it, or undo().")


def _head(store: Store, run_id: str) -> Attempt | None:
    """The evaluated attempt that is built on. A head that was never evaluated stands for its base."""
    run = store.run(run_id)
    if run is None:
        raise StoreError(f"Run {run_id} is not in the store.", "`cf.runs()` lists those that are.")
    if run.head is None:  # the automatic loop went on since
        return next((a for a in reversed(store.attempts(run_id)) if a.verdict is not None), None)
    attempt = store.attempt(run.head) if run.head else None
    while attempt is not None and attempt.verdict is None:
        attempt = store.attempt(attempt.base) if attempt.base else None
    return attempt


def _needed_head(nodes: Nodes) -> Attempt:
    head = _head(nodes.store, nodes.journal.run_id)
    if head is None:
        raise ConflictError("There is no evaluated attempt yet.", "draft() or edit(), then evaluate().")
    return head


async def _written(nodes: Nodes, attempt: Attempt, way: Callable[[State], Awaitable[State]]) -> Attempt:
    """Has the Coder write the attempt; one whose reply could not be read is closed."""
    await way(_state(nodes, attempt))
    attempt = nodes.attempt(_state(nodes, attempt))
    if attempt.kernel is None:
        nodes.close(attempt)
        attempt = nodes.attempt(_state(nodes, attempt))
    return attempt


def _result(nodes: Nodes, key: str | None, kind: type[_T]) -> _T:
    result = nodes.store.result(key) if key else None
    if not isinstance(result, kind):
        raise StoreError(f"{key} is not in the store.")
    return result


def _kernel(source: str | Mapping[str, str] | Kernel | UsableKernel, language: Language, base: Kernel | None) -> Kernel:
    """The kernel that a person wrote, completed from `base`."""
    if isinstance(source, UsableKernel):
        source = source.kernel
    if isinstance(source, Kernel):
        if source.language is not language:
            raise UsageError(f"The session is in {language.value}, this kernel in {source.language.value}.")
        return source
    main = language.source_name or "model.py"
    files = {main: source} if isinstance(source, str) else dict(source)
    missing = [name for name in language.file_names if name not in files]
    if missing and base is None:
        raise UsageError(
            f"The first {language.value} kernel needs {' and '.join(language.file_names)}.",
            f"edit({{{', '.join(f'{name!r}: ...' for name in language.file_names)}}})",
        )
    return Kernel.of(language, {**(base.files if base else {}), **files}, base.flags if base else ())
