"""RunResult: one stored run as Python sees it. A view: it reads what the store holds now, and holds nothing open."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cudaforge import describe, wiring, words
from cudaforge.errors import StoreError
from cudaforge.evaluation import Baseline, Evaluation, Speedup, Verification
from cudaforge.inuse import UsableKernel
from cudaforge.kernel import Kernel
from cudaforge.search.chain import ChainPolicy
from cudaforge.task import Task
from cudaforge.trace import Attempt, Role, Run, RunState, StoredEvent
from cudaforge_profiling.types import Device, Profile

if TYPE_CHECKING:
    import pandas as pd

    from cudaforge.store.sqlite import SqliteStore


class RunResult:
    """A run as it is stored: finished, under way, waiting, stopped or failed; `state` and `message` say which.

    Every property is read when it is asked for, so that a run which goes on elsewhere is seen as it then stands.
    Raises StoreError where the record cannot be read or the run is gone.
    """

    def __init__(self, run_id: str, home: Path | str | None = None) -> None:
        """`run_id` is a run's whole id in `home`; `cf.load_run` takes a beginning, or `last`, too."""
        self.id = run_id
        self.home = wiring.resolve_home(Path(home) if home is not None else None)

    # -- where it stands --------------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run as stored now."""
        with self._store() as store:
            return self._run(store)

    @property
    def state(self) -> RunState:
        """queued, running, suspended, done, stopped or failed."""
        return self.run.state

    @property
    def message(self) -> str:
        """Where the run stands and what to do about it, in a sentence or two."""
        run = self.run
        outcome, speedup = run.outcome, self.speedup
        match run.state:
            case RunState.DONE if outcome and outcome.win and speedup:
                return f"Verified: {words.interval(speedup.eager)} over eager PyTorch ({outcome.reason})."
            case RunState.DONE:
                why = f" ({outcome.reason})" if outcome and outcome.reason else ""
                return f"No win found{why}: no kernel was verified to be faster than eager PyTorch."
            case RunState.SUSPENDED:
                asked = any(f"/{role.value}/" in run.waiting_for for role in Role)
                how = f" Answer it with `cudaforge reply {run.id}`, then" if asked else " Once it is there,"
                return f"Waits for {run.waiting_for}.{how} resume() goes on."
            case RunState.STOPPED if run.head is not None:
                return "A session between two steps; cf.Session.resume takes the next, resume() goes on automatically."
            case RunState.STOPPED:
                return "Stopped before its end; resume() goes on, and nothing received is asked for again."
            case RunState.FAILED:
                return f"Failed: {words.one_line(run.error, 400)} resume() goes on once the cause is mended."
            case RunState.QUEUED:
                return "Waits for a worker."
        return "Under way, or cut off; resume() goes on with a run that was cut off."

    def resume(self, *, progress: bool | None = None) -> RunResult:
        """Goes on with the run from where it stands, blocking, and returns this result; see `cf.optimize`.

        Nothing that was received is asked for again, nothing measured is measured again. A run that is done stays
        as it is. Raises ModelError, EvaluatorError or StoreError after the run was stored as failed; StoreError also
        where another process drives it.
        """
        from cudaforge.python import drive

        return drive(self, progress)

    @property
    def task(self) -> Task:
        """What was optimised."""
        return self.run.spec.task

    @property
    def device(self) -> Device | None:
        """Where it was measured; None before the first measurement."""
        return self.run.device

    @property
    def branched_from(self) -> str | None:
        """Id of the attempt, RUN.ROUND, that a session's branch began with; None for other runs."""
        return self.run.branched_from

    # -- what was found ---------------------------------------------------------------------------------------

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every round, in order."""
        with self._store() as store:
            return tuple(store.attempts(self.id))

    @property
    def best(self) -> Attempt | None:
        """The attempt whose kernel was verified as a win, else the fastest that passed its screening and that no
        verification found wrong, else None."""
        with self._store() as store:
            return self._best(store)

    @property
    def kernel(self) -> UsableKernel | None:
        """The kernel of `best`, usable at once; its `.verified` says whether the verification confirmed it."""
        with self._store() as store:
            run, best = self._run(store), self._best(store)
            kernel = store.kernel(best.kernel) if best and best.kernel else None
        if kernel is None:
            return None
        verified = bool(run.outcome and run.outcome.win and run.outcome.kernel == kernel.id)
        return UsableKernel(kernel, run.spec.task, verified=verified, folder=self.home / "kernels")

    @property
    def speedup(self) -> Speedup | None:
        """Time of the reference over time of the kernel of `best`, with 95 % intervals; above 1 is faster.

        As its verification measured it, where it had one (a win or not), else as its screening did.
        """
        with self._store() as store:
            best = self._best(store)
            if best is None:
                return None
            checked = self._verified(store).get(best.id)
        return checked.evaluation.speedup if checked else best.speedup

    @property
    def baseline(self) -> Baseline | None:
        """The reference's times, bytes and floor; None before they were measured."""
        with self._store() as store:
            return next(iter(store.results_of(self.id, Baseline).values()), None)

    @property
    def verification(self) -> Verification | None:
        """The measurement that counts, made at the end in fresh processes; None before, or where nothing passed."""
        with self._store() as store:
            return describe.verification_of(store, self._run(store))

    def evaluation(self, attempt: Attempt | int) -> Evaluation | None:
        """What the machine found out about a round's kernel; None while it is open. `attempt` may be its round."""
        with self._store() as store:
            key = self._attempt(store, attempt).evaluation
            result = store.result(key) if key else None
        return result if isinstance(result, Evaluation) else None

    def profile(self, attempt: Attempt | int) -> Profile | None:
        """The profile of a round's kernel, without its raw report; None where none was made."""
        with self._store() as store:
            key = self._attempt(store, attempt).profile
            result = store.result(key) if key else None
        return result if isinstance(result, Profile) else None

    def source(self, attempt: Attempt | int) -> Kernel | None:
        """The kernel that a round wrote; None where there is none."""
        with self._store() as store:
            key = self._attempt(store, attempt).kernel
            return store.kernel(key) if key else None

    def events(self, after: int = 0) -> list[StoredEvent]:
        """Everything that happened, in order, with an id above `after`."""
        with self._store() as store:
            return list(describe.all_events(store, self.id, after))

    # -- tables and pictures ----------------------------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row a round, in order, with the rounds as index.

        Columns: action, base (a round), verdict, reason, time_us (microseconds a call), speedup, low, high (screened,
        over eager, 95 % interval), speedup_compile, predicted_gain, measured_gain, tried, hint, kernel, seconds (from
        the round's beginning to its end), usd. What is not known is missing (NaN or None).
        """
        import pandas as pd

        with self._store() as store:
            attempts, calls = store.attempts(self.id), store.calls(self.id)
        rounds = {attempt.id: attempt.round for attempt in attempts}
        rows = [
            _row(attempt, rounds, describe.spent(c for c in calls if c.attempt_id == attempt.id)[1])
            for attempt in attempts
        ]
        columns = list(_row(_NOBODY, {}, None))
        return pd.DataFrame(rows, columns=columns, index=pd.Index([a.round for a in attempts], name="round"))

    def plot_history(self, ax: Any = None) -> Any:
        """Speedup over eager by round, with intervals and what failed. Returns the matplotlib Axes (`ax`, or new).

        Needs matplotlib: `pip install 'cudaforge[notebook]'`.
        """
        return import_module("cudaforge.notebook.plots").history(self, ax)

    def plot_roofline(self, ax: Any = None) -> Any:
        """Operations a second against operations a byte, of each profiled round, below what the device can do.

        Returns the matplotlib Axes (`ax`, or new). Needs matplotlib: `pip install 'cudaforge[notebook]'`.
        """
        return import_module("cudaforge.notebook.plots").roofline(self, ax)

    def __repr__(self) -> str:
        run, attempts = self.run, self.attempts
        return (
            f"RunResult({run.id}, {run.spec.task.name}, {run.state.value}, "
            f"{len(attempts)} {'round' if len(attempts) == 1 else 'rounds'}: {self.message})"
        )

    def _repr_html_(self) -> str:
        html: str = import_module("cudaforge.notebook.display").html(self)
        return html

    # -- within -----------------------------------------------------------------------------------------------

    def _store(self) -> AbstractContextManager[SqliteStore]:
        return closing(wiring.open_record(self.home))

    def _run(self, store: SqliteStore) -> Run:
        run = store.run(self.id)
        if run is None:
            raise StoreError(f"Run {self.id} is not in {self.home}.", "`cf.runs()` lists those that are.")
        return run

    def _best(self, store: SqliteStore) -> Attempt | None:
        outcome = self._run(store).outcome
        if outcome and outcome.best:
            return store.attempt(outcome.best)
        verified = self._verified(store)
        ranked = ChainPolicy().ranking(store.attempts(self.id))
        return next((a for a in ranked if a.id not in verified or verified[a.id].evaluation.passed), None)

    def _verified(self, store: SqliteStore) -> dict[str, Verification]:
        """What the last verification of a kernel found, by the attempt that wrote it."""
        found = store.results_of(self.id, Verification)
        return {key.partition("/")[0]: verification for key, verification in found.items()}

    def _attempt(self, store: SqliteStore, attempt: Attempt | int) -> Attempt:
        """As stored now."""
        wanted = attempt.id if isinstance(attempt, Attempt) else f"{self.id}.{attempt}"
        found = store.attempt(wanted)
        if found is None or found.run_id != self.id:
            raise StoreError(f"Run {self.id} has no attempt {wanted}.", "`.attempts` lists them.")
        return found


def _row(attempt: Attempt, rounds: dict[str, int], usd: float | None) -> dict[str, Any]:
    speedup = attempt.speedup
    return {
        "action": attempt.action.value,
        "base": rounds.get(attempt.base) if attempt.base else None,
        "verdict": attempt.verdict.value if attempt.verdict else None,
        "reason": attempt.reason or attempt.reply_error,
        "time_us": attempt.time_us,
        "speedup": speedup.eager.value if speedup else None,
        "low": speedup.eager.low if speedup else None,
        "high": speedup.eager.high if speedup else None,
        "speedup_compile": speedup.compile.value if speedup and speedup.compile else None,
        "predicted_gain": attempt.predicted_gain,
        "measured_gain": attempt.measured_gain,
        "tried": describe.tried(describe.attempt_output(attempt)),
        "hint": attempt.hint,
        "kernel": attempt.kernel,
        "seconds": (attempt.finished - attempt.started).total_seconds() if attempt.finished else None,
        "usd": usd,
    }


_NOBODY = Attempt.model_validate({"id": "r.0", "run_id": "r", "round": 0, "action": "draft"})
"""An empty round: what names the columns of a table without rows."""
