"""`html(thing)`: what a notebook shows for an object of CudaForge.

Everything goes through Jinja2 templates that escape; tasks, kernels, models' words and compiler output are untrusted,
and what is long is cut and says so. There is no script and nothing is loaded, so a saved notebook shows the same.
Results, kernels in use and sessions are known by their class's name: this module imports the vocabulary alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cudaforge import profile_words, words
from cudaforge.describe import attempt_output, tried
from cudaforge.evaluation import Baseline, Diagnostic, Evaluation, Verification
from cudaforge.kernel import Kernel
from cudaforge.notebook import code, plain
from cudaforge.notebook.curve import Point, curve
from cudaforge.shapes import AttemptOutput
from cudaforge.task import Task
from cudaforge.trace import Attempt, Diagnosis, Plan, Run
from cudaforge_profiling.metrics import SPECS, STALL_MEANINGS
from cudaforge_profiling.types import Launch, Profile

TEMPLATES = Path(__file__).parent / "templates"
MOST_DIAGNOSTICS = 12
MOST_ROUNDS = 60
"""Lines of a table of rounds; the first ones are left out beyond it."""
MOST_FOLDS = 20
"""Rounds of a result that can be unfolded."""
MOST_CHANGES = 150
"""Lines of a diff."""
MOST_LAUNCHES = 4
MOST_METRICS = 40
MOST_TRIED = 70
MOST_CHARACTERS = 4000
"""Of a text that a model, a kernel or a compiler wrote."""
MOST_ITEMS = 40
"""Of a list of such."""

Values = Mapping[str, Any]


def html(thing: object) -> str:
    """HTML of a Task, Kernel, Evaluation, Verification, Baseline, Profile, Plan, Diagnosis, Attempt, Run, RunResult,
    UsableKernel or Session. Raises TypeError for anything else."""
    for kind in type(thing).__mro__:
        if kind.__name__ in SHOWN:
            template, values = SHOWN[kind.__name__]
            return render(template, values(thing))
    raise TypeError(f"there is no display for {type(thing).__name__}")


def render(template: str, values: Values) -> str:
    """A template in its frame. Lone surrogates, which sources and replies may contain, become `?`."""
    shown = environment().get_template(f"{template}.html").render(**values)
    return shown.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def environment() -> jinja2.Environment:
    """The templates. Escaping is on for every one of them, and a name that is missing is a mistake of ours."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    made.globals.update(style=Markup(style), symbols=words.SYMBOLS, lines=plain.lines, most_items=MOST_ITEMS)
    for name in (
        *("microseconds", "times", "interval", "bracket", "standing", "percent", "size", "count", "one_line", "clean"),
        *("duration", "stages", "short_model", "floors", "attribution", "clock"),
    ):
        made.filters[name] = getattr(words, name)
    made.filters.update(number=profile_words.number, said=said)
    return made


def said(text: str) -> str:
    """What somebody wrote, without control characters; a long text is cut and says so."""
    shown = words.clean(text)
    if len(shown) <= MOST_CHARACTERS:
        return shown
    return f"{shown[:MOST_CHARACTERS]} … ({words.count(len(shown) - MOST_CHARACTERS)} characters are left out)"


# -- one kernel ------------------------------------------------------------------------------------------------------


def _task(task: Task) -> Values:
    return {"task": task, "listing": code.code(task.source, "task.py")}


def kernel_files(kernel: Kernel, marks: Mapping[str, Mapping[int, str]] | None = None) -> list[tuple[str, str, Markup]]:
    """Name, lines and listing of each file."""
    names = kernel.language.file_names
    return [
        (name, plain.lines(kernel.files[name]), code.code(kernel.files[name], name, (marks or {}).get(name)))
        for name in names
    ]


def _kernel(kernel: Kernel) -> Values:
    return {"kernel": kernel, "files": kernel_files(kernel)}


def _usable(usable: Any) -> Values:
    return {**_kernel(usable.kernel), "verified": usable.verified}


def _evaluation(found: Evaluation) -> Values:
    correctness = found.correctness
    return {
        "found": found,
        "diagnostics": [(d, *caret(d)) for d in found.diagnostics[:MOST_DIAGNOSTICS]],
        "more": max(0, len(found.diagnostics) - MOST_DIAGNOSTICS),
        "correctness": words.correctness(correctness, words.failed_workload(found.reason)) if correctness else [],
        # Else the words of the comparison say it.
        "reason": "" if correctness and correctness.errors else found.reason,
        "printed": code.cut(found.output_tail.strip()[-2000:], 40)[0] if not found.passed else "",
    }


def caret(diagnostic: Diagnostic) -> tuple[str, str]:
    """The source line, and a line with a caret below the column; both empty where there is none."""
    line = diagnostic.source_line.rstrip()
    if not line.strip():
        return "", ""
    before = line[: max(0, diagnostic.column - 1)]
    below = "".join("\t" if c == "\t" else " " for c in before) + "^" if 0 < diagnostic.column <= len(line) + 1 else ""
    return words.clean(line)[: code.MOST_COLUMNS], words.clean(below) if len(below) < code.MOST_COLUMNS else ""


def _verification(found: Verification) -> Values:
    warning = words.noise_warning(found)
    return {
        **_evaluation(found.evaluation),
        "verification": found,
        "warning": warning,
        "why": "" if found.win else words.why_no_win(found),
    }


def _baseline(baseline: Baseline) -> Values:
    return {"baseline": baseline}


# -- profile ---------------------------------------------------------------------------------------------------------


def _profile(profile: Profile) -> Values:
    launches = profile_words.longest_first(profile)
    bars = _bars(profile, launches)
    copied = profile_words.copy_percent(profile)
    if copied is not None:
        bars.append(("least bytes / copy rate", copied))
    return {
        "profile": profile,
        "facts": profile_words.facts_of(profile),
        "bars": bars,
        "launches": [_launch(launch) for launch in launches[:MOST_LAUNCHES]],
        "more": max(0, len(launches) - MOST_LAUNCHES),
    }


def _bars(profile: Profile, launches: Sequence[Launch]) -> list[tuple[str, float]]:
    """Percent of the peaks, of the launch that took longest."""
    found = []
    for name, metric in (launches[0].metrics if launches else {}).items():
        base, value = name.split(".", 1)[0], profile_words.value_of(metric)
        if base in profile_words.BARS and value is not None and "pct_of_peak" in name:
            found.append((profile_words.BARS[base], value))
    return found


def _launch(launch: Launch) -> Values:
    stalls = launch.stalls or profile_words.stall_shares(launch)
    metrics = []
    for metric in list(launch.metrics.values())[:MOST_METRICS]:
        value, spec = profile_words.value_of(metric), SPECS.get(metric.name)
        shown = words.one_line(str(metric.value), 80) if value is None else profile_words.number(value)
        metrics.append((metric.name, shown, metric.unit, spec.meaning if spec else ""))
    return {
        "launch": launch,
        "facts": profile_words.launch_facts(launch),
        "metrics": metrics,
        "more": max(0, len(launch.metrics) - MOST_METRICS),
        "stalls": [
            (name, share, STALL_MEANINGS.get(name, ""))
            for name, share in sorted(stalls.items(), key=lambda item: -item[1])[:6]
            if share >= 0.005
        ],
    }


# -- advice, rounds, runs --------------------------------------------------------------------------------------------


def _advice(advice: Plan | Diagnosis) -> Values:
    return {"advice": advice}


def _attempt(attempt: Attempt) -> Values:
    return {"attempt": attempt}


def _run(run: Run) -> Values:
    return {"run": run}


def rounds(attempts: Sequence[Attempt], best: str | None) -> Values:
    """The table of rounds."""
    shown = attempts[-MOST_ROUNDS:]
    return {
        "rounds": [(a, words.one_line(tried(attempt_output(a)), MOST_TRIED)) for a in shown],
        "rounds_left_out": len(attempts) - len(shown),
        "best": best,
    }


def points(attempts: Sequence[Attempt | AttemptOutput]) -> list[Point]:
    """What a curve is drawn of: the rounds that have come to something."""
    return [
        Point(a.round, a.speedup.eager if a.speedup else None, a.verdict)
        for a in attempts
        if a.verdict or a.reply_error or a.speedup
    ]


def _result(result: Any) -> Values:
    run, attempts = result.run, result.attempts
    verified = run.outcome.speedup.eager if run.outcome and run.outcome.win and run.outcome.speedup else None
    return {
        "run": run,
        "result": result,
        "curve": curve(points(attempts), verified),
        "verified": verified,
        "aa": result.verification.aa if result.verification else None,
        **rounds(attempts, result.best.id if result.best else None),
        "folds": [_fold(result, attempts, attempt) for attempt in attempts[-MOST_FOLDS:]],
        "files": kernel_files(result.kernel.kernel) if result.kernel else [],
    }


def _fold(result: Any, attempts: Sequence[Attempt], attempt: Attempt) -> Values:
    """One round to be unfolded: the advice, the changes against its base, and what came of it."""
    base = next((a for a in attempts if a.id == attempt.base), None)
    ours, theirs = result.source(attempt), result.source(base) if base else None
    evaluation = result.evaluation(attempt)
    return {
        "attempt": attempt,
        "base": base if theirs else None,
        "changes": code.changes(theirs, ours, MOST_CHANGES) if ours and theirs else None,
        "files": [] if theirs or not ours else kernel_files(ours),
        **(_evaluation(evaluation) if evaluation and not evaluation.passed else {"found": None}),
    }


def _session(session: Any) -> Values:
    result = session.result
    values = dict(_result(result))
    history, head = session.history, session.head
    # An attempt that is not evaluated yet is what the user works on; else the head is.
    current = history[-1] if history and history[-1].finished is None else head
    values["current"] = _fold(result, history, current) if current else None
    values["head"] = head
    return values


SHOWN: dict[str, tuple[str, Callable[[Any], Values]]] = {
    "Task": ("task", _task),
    "Kernel": ("kernel", _kernel),
    "UsableKernel": ("usable", _usable),
    "Evaluation": ("evaluation", _evaluation),
    "Verification": ("verification", _verification),
    "Baseline": ("baseline", _baseline),
    "Profile": ("profile", _profile),
    "Plan": ("advice", _advice),
    "Diagnosis": ("advice", _advice),
    "Attempt": ("attempt", _attempt),
    "Run": ("run", _run),
    "RunResult": ("result", _result),
    "Session": ("session", _session),
}
"""By the name of the class: its template, and what goes into it."""
