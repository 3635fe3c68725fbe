"""Every object shows itself in a notebook; what others wrote is text there, and long text is cut."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import records, tasks
from support.recorded_home import GPU, NO_WIN, PASSED, WAITING

from cudaforge import words
from cudaforge.evaluation import (
    Baseline,
    Build,
    Correctness,
    Diagnostic,
    Evaluation,
    OutputError,
    Samples,
    Verdict,
    Verification,
    WorkloadBaseline,
    WorkloadTiming,
)
from cudaforge.inuse import UsableKernel
from cudaforge.kernel import Kernel
from cudaforge.notebook import code
from cudaforge.notebook.cell import CellResult
from cudaforge.notebook.curve import Point, curve
from cudaforge.notebook.display import html
from cudaforge.results import RunResult
from cudaforge.session import Session
from cudaforge.store.sqlite import SqliteStore
from cudaforge.task import Task, TaskMeta, Workload
from cudaforge.trace import Action, Attempt, Diagnosis, Evidence, Plan, RunState
from cudaforge_profiling.types import HotLine, Launch, Metric, Profile, Remark

EVIL = (
    "</pre></style></script><script>canary()</script><img src=x onerror=canary()><svg onload=canary()>"
    "<!--\u2028'\"` onclick=canary() {{7*7}}{% raw %}</svg><a href='javascript:canary()'>"
)
SHOWN = "&lt;img src=x onerror=canary()&gt;"
Of = Callable[[str], RunResult]
TAGS = {"div", "style", "b", "i", "p", "span", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt"}
TAGS |= {"dd", "h4", "ol", "li", "details", "summary", "svg", "path", "circle", "text", "title"}
ATTRIBUTES = {"class", "open", "style", "viewbox", "role", "aria-label", "d", "x", "y", "cx", "cy", "r", "text-anchor"}


class Parsed(HTMLParser):
    """What a browser would make of it: elements, attributes, and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(str(text))  # not Markup, which would escape what the parser puts together
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(text: str) -> Parsed:
    """Parses, and asserts that elements and attributes are ours alone."""
    parsed = Parsed(text)
    assert not parsed.open
    assert parsed.tags <= TAGS
    assert {name for name, _ in parsed.attributes} <= ATTRIBUTES
    assert not [value for _, value in parsed.attributes if "canary" in value or "<" in value]
    styles = [value for name, value in parsed.attributes if name == "style"]
    assert all(re.fullmatch(r"width:\d{1,3}\.\d%", value) for value in styles)
    text.encode("utf-8")
    return parsed


def evil(what: str) -> str:
    return f"{what} {EVIL}"


def hostile_kernel() -> Kernel:
    return Kernel.of("cpp", {"kernel.cpp": f'// {EVIL}\nint x = "{EVIL}\n', "model.py": f'"""{EVIL}"""\n'}, ("-O3",))


def hostile() -> dict[str, Any]:
    """One of each kind in which everything that others wrote is an attack."""
    device = records.DEVICE.model_copy(update={"name": evil("device"), "arch": evil("arch")})
    meta = TaskMeta(notes=evil("notes"), workloads=(Workload(name=evil("w"), overrides={evil("n"): evil("v")}),))
    task = Task(name=evil("task"), source=f"# {EVIL}\nx = '''{EVIL}'''\n", meta=meta)
    kernel = hostile_kernel()
    shared: dict[str, Any] = {"task": task.id, "kernel": kernel.id, "device": device}
    said = Diagnostic(
        severity="error", message=evil("says"), file=evil("f"), line=2, column=3, source_line=evil("line"), tool=EVIL
    )
    wrong = OutputError(output=evil("out"), mismatched=1, total=4, first=(((0,), 1.0, None),), pattern=evil("pattern"))
    incorrect = Evaluation(
        verdict=Verdict.INCORRECT,
        reason=evil("reason"),
        rule=evil("rule"),
        correctness=Correctness(trials=1, passed=0, tolerance=evil("t"), errors=(wrong,), flags=(evil("flag"),)),
        diagnostics=(said,),
        build=Build(compiler=evil("g++")),
        isolation=(evil("layer"),),
        versions={evil("name"): evil("version")},
        stages_s={evil("stage"): 1.0},
        output_tail=evil("printed"),
        **shared,
    )
    samples = Samples(median_us=9.0, low_us=8.0, high_us=10.0, samples_us=(9.0,), clock=evil("clock"))
    timing = WorkloadTiming(workload=evil("w"), kernel=samples, eager=samples, speedup=records.SPEEDUP)
    passed = records.evaluation().model_copy(update={**shared, "workloads": (timing, timing)})
    workload = WorkloadBaseline(
        workload=evil("w"), eager=samples, compile_error=evil("compile"), inputs=(EVIL,), outputs=(EVIL,)
    )
    metric = Metric(name=evil("metric"), value=evil("value"), unit=evil("%"))
    profile = Profile(
        kernel=kernel.id,
        device=device,
        metric_set="core",
        tool=evil("ncu"),
        launches=(Launch(index=0, name=evil("kernel"), metrics={metric.name: metric}, stalls={evil("stall"): 0.5}),),
        hot_lines=(HotLine(file=evil("f"), line=2, share=0.5, text=EVIL),),
        remarks=(Remark(file=evil("f"), line=1, kind="note", message=evil("remark")),),
        notes=(evil("note"),),
        unavailable=evil("unavailable"),
    )
    plan = Plan(
        bottleneck=evil("b"),
        evidence=(Evidence(metric=evil("m"), value=evil("v")),),
        method=evil("method"),
        steps=(evil("step"),),
    )
    diagnosis = Diagnosis(critical_issue=evil("issue"), why_it_matters=evil("why"), minimal_fix_hint=evil("hint"))
    spec = records.run().spec.model_copy(update={"task": task, "coder": evil("openai:c"), "judge": evil("openai:j")})
    run = records.run().model_copy(
        update={"spec": spec, "device": device, "error": evil("error"), "state": RunState.FAILED}
    )
    attempt = Attempt(
        id=f"{run.id}.0",
        run_id=run.id,
        round=0,
        action=Action.REVISE,
        advice=plan,
        reason=evil("reason"),
        reply_error=evil("reply"),
        verdict=Verdict.INCORRECT,
    )
    return {
        "task": task,
        "kernel": kernel,
        "incorrect": incorrect,
        "passed": passed,
        "verification": Verification(evaluation=passed, note=evil("note")),
        "lost": Verification(evaluation=incorrect, note=evil("note")),
        "baseline": Baseline(task=task.id, device=device, workloads=(workload,), flags=(evil("flag"),)),
        "profile": profile,
        "plan": plan,
        "diagnosis": diagnosis,
        "attempt": attempt,
        "run": run,
        "usable": UsableKernel(kernel, task, verified=True, folder=Path("unused")),
        "cell": CellResult(task, kernel, incorrect, profile),
    }


@pytest.mark.parametrize("kind", hostile())
def test_an_attack_is_shown_as_text(kind: str) -> None:
    thing = hostile()[kind]
    shown = thing._repr_html_() if kind == "cell" else html(thing)
    assert "canary" in harmless(shown).text
    assert "49{%" not in shown


def test_an_attack_in_a_run_is_text_in_its_result_and_its_session(store: SqliteStore, cudaforge_home: Path) -> None:
    made = hostile()
    run, kernel = made["run"], made["kernel"]
    other = Kernel.of("cpp", {**kernel.files, "kernel.cpp": f"{kernel.source}// + {EVIL}\n"})
    store.create_run(run)
    for number, each in enumerate((kernel, other)):
        store.save_kernel(each)
        key = f"{run.id}.{number}/evaluate/0"
        store.save_result(run.id, key, made["incorrect"].model_copy(update={"kernel": each.id}))
        base = f"{run.id}.0" if number else None
        changes = {"id": f"{run.id}.{number}", "round": number, "base": base, "kernel": each.id, "evaluation": key}
        store.save_attempt(made["attempt"].model_copy(update=changes))
    result = RunResult(run.id, cudaforge_home)
    for thing in (result, Session.resume(run.id, home=cudaforge_home)):
        shown = html(thing)
        assert "Changes against round 0" in harmless(shown).text
        assert SHOWN in shown


@pytest.fixture
def store(cudaforge_home: Path) -> Any:
    opened = SqliteStore(cudaforge_home)
    yield opened
    opened.close()


# -- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [PASSED, NO_WIN, WAITING, GPU])
def test_everything_of_a_real_run_has_a_display(of_run: Of, task: str) -> None:
    result = of_run(task)
    things: list[Any] = [result, result.run, result.task, result.baseline, result.verification, result.kernel]
    for attempt in result.attempts:
        things += [attempt, attempt.advice, result.evaluation(attempt), result.profile(attempt), result.source(attempt)]
    things.append(Session.resume(result.id, home=result.home))
    shown = [harmless(html(thing)).text for thing in things if thing is not None]
    assert len(shown) > 5


def test_a_result_shows_the_verified_speedup_every_round_and_the_kernel(of_run: Of) -> None:
    result = of_run(PASSED)
    shown = html(result)
    text = harmless(shown).text
    assert result.speedup and words.bracket(result.speedup.eager) in text
    assert all(f"round {attempt.round}: {attempt.action}" in text for attempt in result.attempts)
    assert result.kernel and result.kernel.id in text
    assert shown.count('class="dot"') == sum(attempt.passed for attempt in result.attempts)


def test_a_session_shows_its_head_with_the_changes_against_its_base(store: SqliteStore, cudaforge_home: Path) -> None:
    run, (first, second) = records.run(head="r000000001.1"), (tasks.cpp(), tasks.cpp(tasks.KERNEL_CPP + "// faster\n"))
    store.create_run(run)
    for kernel in (first, second):
        store.save_kernel(kernel)
    store.save_attempt(records.attempt(number=0, kernel=first.id))
    store.save_attempt(records.attempt(number=1, kernel=second.id, base=f"{run.id}.0", hint="be <b>quick</b>"))
    session = Session.resume(run.id, home=cudaforge_home)
    shown = html(session)
    assert "Changes against round 0" in shown and 'class="l a">+// faster' in shown
    assert "asked for: be &lt;b&gt;quick&lt;/b&gt;" in shown
    assert "1★ ◂" in harmless(shown).text or "1 ◂" in harmless(shown).text
    # What is written and not evaluated yet is what the user works on.
    third = records.attempt(number=2, kernel=first.id, base=f"{run.id}.1", verdict=None, speedup=None, finished=None)
    store.save_attempt(third)
    assert "Changes against round 1" in html(session).split("<details open>")[1].split("</details>")[0]
    store.save_attempt(third.model_copy(update={"finished": records.START}))
    assert ">withdrawn<" in html(session)


def test_a_fresh_session_says_how_to_begin(store: SqliteStore, cudaforge_home: Path) -> None:
    store.create_run(records.run(head=""))
    assert "No kernel yet" in harmless(html(Session.resume("last", home=cudaforge_home))).text


def test_objects_show_themselves(of_run: Of) -> None:
    result = of_run(GPU)
    attempt = result.attempts[-2]
    for thing in (
        result.run,
        result.task,
        attempt,
        attempt.advice,
        result.evaluation(attempt),
        result.profile(attempt),
    ):
        assert thing is not None
        assert thing._repr_html_() == html(thing)


def test_compiler_errors_stand_over_their_line_with_a_caret(of_run: Of) -> None:
    result = of_run(PASSED)
    evaluation = result.evaluation(result.attempts[0])
    assert evaluation is not None
    said = evaluation.diagnostics[0]
    text = harmless(html(evaluation)).text
    assert f"{said.file}:{said.line}:{said.column}" in text
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.strip() == "^")
    assert lines[at - 1].rstrip() == said.source_line.rstrip()
    assert lines[at].index("^") == said.column - 1


def test_a_profile_shows_peaks_stalls_and_hot_lines(of_run: Of) -> None:
    result = of_run(GPU)
    profile = next(p for a in reversed(result.attempts) if (p := result.profile(a)))
    text = harmless(html(profile)).text
    assert "Speed of light" in text and "Hot lines" in text
    assert words.rate(profile.roofline.achieved_flops_per_s, "FLOP") in text


def test_what_has_no_display_is_refused() -> None:
    with pytest.raises(TypeError, match="no display for int"):
        html(3)


# -- long, odd, without Pygments -------------------------------------------------------------------------------------


def test_what_is_long_is_cut_and_says_so() -> None:
    kernel = Kernel.of("cpp", {"kernel.cpp": "int x;\n" * 2000 + "y" * 5000, "model.py": "z" * 5000})
    shown = html(kernel)
    assert len(shown) < 120_000
    assert "1601 of 2001 lines are left out" in shown
    assert "1 long line is cut" in shown


def test_long_words_of_a_judge_are_cut_too() -> None:
    plan = Plan(bottleneck="b" * 1_000_000, method="m", steps=("s" * 100_000,) * 100)
    shown = html(plan)
    assert len(shown) < 250_000
    assert "996,000 characters are left out" in shown and "60 steps are left out" in shown


def test_lone_surrogates_and_control_characters_do_no_harm() -> None:
    kernel = records.kernel("int \ud800 x;\x0c\n\x1b[31mint y;\u202e\n")
    text = harmless(html(kernel)).text
    assert "[31m" not in text and "\u202e" not in text


@pytest.mark.parametrize("name", ["kernel.cu", "kernel.cpp", "model.py", "other.txt"])
def test_a_listing_keeps_every_line(name: str) -> None:
    source = '// a\n"""one\ntwo\n\n"""\nint x = 1; /* open\n\nstill */\ndef f(): return "s"\n'
    shown = code.code(source, name, {2: "error"})
    lines = [re.sub(r"^ +\d+ ", "", line) for line in Parsed(shown).text.split("\n")]
    assert lines == source.rstrip("\n").split("\n")
    assert shown.count('class="l error"') == 1


def test_the_same_sources_have_no_diff() -> None:
    kernel = tasks.cpp()
    assert "The same sources." in code.changes(kernel, kernel)
    assert "built with other flags" in code.changes(kernel, tasks.cpp(flags=("-O2",)))


def test_without_pygments_code_is_plain_and_escaped() -> None:
    script = (
        "import sys; sys.modules['pygments'] = None\n"
        "from cudaforge.kernel import Kernel\n"
        "kernel = Kernel.of('cpp', {'kernel.cpp': 'int x = 1 < 2;', 'model.py': 'x'})\n"
        "print(kernel._repr_html_().split('</style>')[1])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "int x = 1 &lt; 2;" in shown
    assert 'class="k"' not in shown


def test_without_jinja2_an_object_has_no_html_and_a_notebook_shows_its_line() -> None:
    script = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from cudaforge.kernel import Kernel\n"
        "kernel = Kernel.of('cpp', {'kernel.cpp': 'int x;', 'model.py': 'x'})\n"
        "print(kernel._repr_html_(), kernel)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("None <Kernel k")


# -- the curve -------------------------------------------------------------------------------------------------------


def interval(value: float, spread: float = 0.1) -> Any:
    return records.SPEEDUP.eager.model_copy(update={"value": value, "low": value - spread, "high": value + spread})


def test_the_curve_marks_failures_and_leaves_out_what_is_no_number() -> None:
    points = [
        Point(0, None, Verdict.BUILD_FAILED),
        Point(1, interval(0.5), Verdict.PASSED),
        Point(2, interval(float("nan")), Verdict.PASSED),
        Point(3, interval(2.0), Verdict.PASSED),
    ]
    drawn = curve(points, interval(1.9))
    assert "nan" not in drawn and "inf" not in drawn
    assert drawn.count("<circle") == 2 and drawn.count("BUILD_FAILED") == 1
    assert 'class="verified"' in drawn
    assert curve([]) == ""
    assert "<svg" in curve([Point(0, None, None)])


@pytest.mark.parametrize("rounds", [1, 2, 100])
def test_the_curve_labels_what_there_is_room_for(rounds: int) -> None:
    drawn = curve([Point(n, interval(1.0 + n), Verdict.PASSED) for n in range(rounds)])
    assert len(re.findall(r'text-anchor="middle"', drawn)) <= 16
