"""What a model, a kernel or a task wrote is text on every page: it is shown, and never runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.recorded_home import PASSED, Copy
from viewer.conftest import Site, Watched, all_drawn

from cudaforge.evaluation import Build, Correctness, Diagnostic, Evaluation, OutputError, Verdict
from cudaforge.kernel import Kernel
from cudaforge.trace import (
    Action,
    Attempt,
    AttemptFinished,
    Call,
    CallState,
    Diagnosis,
    Evidence,
    Message,
    Note,
    Plan,
    Role,
    RunState,
    RunSuspended,
)
from cudaforge_profiling.types import HotLine, Launch, Metric, Profile, Remark

Open = Callable[..., Page]
RUN = "r00000000ev"
EVIL = (
    "</script><script>window.canary=1</script><img src=x onerror=window.canary=1>"
    "<svg onload=window.canary=1></svg><!--<script>\u2028'\"`${window.canary=1}{{7*7}}{% raw %}"
    "javascript:window.canary=1//"
)
SHOWN = "<img src=x onerror=window.canary=1>"
"""A part that no line break cuts."""


def evil(what: str) -> str:
    return f"{what} {EVIL}"


@pytest.fixture
def poisoned(own: Site) -> Site:
    """A home with a run in which everything that others wrote is an attack."""
    copy = Copy(own.store, own.runs[PASSED], RUN, rounds=4)
    device = copy.run.device
    assert device is not None
    task = copy.run.spec.task.model_copy(update={"name": evil("task")[:200], "source": f"# {EVIL}\n"})
    models = {"task": task, "coder": evil("openai:coder"), "judge": evil("openai:judge")}
    spec = copy.run.spec.model_copy(update=models)
    evil_device = device.model_copy(update={"name": evil("device")})
    suspended = {"state": RunState.SUSPENDED, "waiting_for": f"{RUN}.1/coder/0", "error": evil("error")}
    own.store.save_run(copy.run.model_copy(update={"spec": spec, "device": evil_device, **suspended}))
    files = {"kernel.cpp": f"// {EVIL}\nint x;\n", "model.py": f'"""{SHOWN}"""\nclass ModelNew: ...\n'}
    old, new = Kernel.of("cpp", files), Kernel.of("cpp", {**files, "kernel.cpp": f"// {EVIL}\nint y; // {EVIL}\n"})
    for kernel in (old, new):
        own.store.save_kernel(kernel)
    shared: dict[str, Any] = {"task": task.id, "device": evil_device}
    error = Diagnostic(
        severity="error", message=evil("compiler"), file="kernel.cpp", line=2, source_line=EVIL, tool=EVIL
    )
    wrong = OutputError(output=evil("out"), mismatched=1, total=4, first=(((0,), 1.0, None),), pattern=evil("pattern"))
    found = Evaluation(
        verdict=Verdict.INCORRECT,
        reason=evil("reason"),
        kernel=new.id,
        correctness=Correctness(
            trials=1, passed=0, tolerance=evil("tolerance"), errors=(wrong,), flags=(evil("flag"),)
        ),
        diagnostics=(error,),
        build=Build(command=("g++", EVIL), compiler=evil("g++")),
        isolation=(evil("layer"),),
        versions={evil("name"): evil("version")},
        output_tail=evil("printed"),
        **shared,
    )
    metric = Metric(name=evil("metric"), value=evil("value"), unit=evil("%"))
    launch = Launch(index=0, name=evil("kernel"), metrics={metric.name: metric}, stalls={evil("stall"): 0.5})
    hot = HotLine(file="kernel.cpp", line=2, share=0.5, text=EVIL, stalls={EVIL: 1.0})
    profile = Profile(
        kernel=new.id,
        device=evil_device,
        metric_set="core",
        tool=evil("ncu"),
        launches=(launch,),
        hot_lines=(hot,),
        remarks=(Remark(file="kernel.cpp", line=1, kind="note", message=evil("remark")),),
        notes=(evil("note"),),
        unavailable=evil("unavailable"),
    )
    plan = Plan(
        bottleneck=evil("bottleneck"),
        evidence=(Evidence(metric=evil("metric"), value=evil("value")),),
        method=evil("method"),
        steps=(evil("step"),),
        predicted_gain=2.0,
    )
    diagnosis = Diagnosis(critical_issue=evil("issue"), why_it_matters=evil("why"), minimal_fix_hint=evil("hint"))
    for number, kernel, advice in ((0, old, diagnosis), (1, new, plan)):
        mine = f"{RUN}.{number}"
        own.store.save_result(RUN, f"{mine}/evaluate/0", found.model_copy(update={"kernel": kernel.id}))
        own.store.save_result(RUN, f"{mine}/profile/0", profile.model_copy(update={"kernel": kernel.id}))
        attempt = Attempt(
            id=mine,
            run_id=RUN,
            round=number,
            action=Action.REVISE,
            base=f"{RUN}.0" if number else None,
            advice=advice,
            kernel=kernel.id,
            hint=evil("user hint"),
            reply_error=evil("reply error"),
            evaluation=f"{mine}/evaluate/0",
            profile=f"{mine}/profile/0",
            verdict=Verdict.INCORRECT,
            reason=evil("reason"),
        )
        own.store.save_attempt(attempt)
        own.store.append(
            AttemptFinished(
                run_id=RUN, attempt_id=mine, round=number, action=attempt.action, verdict=attempt.verdict, reason=EVIL
            )
        )
        for role, state in (
            (Role.JUDGE, CallState.DONE),
            (Role.CODER, CallState.WAITING if number else CallState.DONE),
        ):
            call = Call(
                key=f"{mine}/{role.value}/0",
                run_id=RUN,
                attempt_id=mine,
                role=role,
                purpose="revise",
                position=number,
                model=evil("model"),
                messages=(Message(role="system", content=evil("system")), Message(role="user", content=evil("prompt"))),
                state=state,
                reply=evil("reply") if state is CallState.DONE else None,
                error=evil("call error"),
            )
            own.store.save_call(call)
    own.store.append(Note(run_id=RUN, level="warning", message=evil("note")))
    own.store.append(RunSuspended(run_id=RUN, waiting_for=f"{RUN}.1/coder/0", message=evil("message")))
    return own


PAGES = {
    "runs": "/",
    "search": "/?text=%3C%2Fscript%3E%3Cscript%3Ewindow.canary%3D1%3C%2Fscript%3E&sort=%22onerror%3D1",
    "compare": f"/compare?a={RUN}&b=OTHER",
    "run": f"/runs/{RUN}",
    **{
        name: f"/runs/{RUN}/rounds/1?tab={name}"
        for name in ("plan", "diff", "correctness", "profile", "timing", "messages")
    },
    "diagnosis": f"/runs/{RUN}/rounds/0?tab=plan",
}


@pytest.mark.parametrize("name", PAGES)
def test_an_attack_is_shown_as_text_and_does_not_run(opened: Open, poisoned: Site, name: str) -> None:
    page = opened(poisoned.url + PAGES[name].replace("OTHER", poisoned.runs[PASSED]))
    for details in page.locator("details:not([open]) > summary").all():
        if details.is_visible():
            details.click()
    all_drawn(page)
    assert page.evaluate("window.canary") is None
    assert page.locator("[onerror], [onload], img[src=x]").count() == 0
    assert page.locator("script:not([src]):not([type='application/json'])").count() == 0
    assert page.locator("a[href^='javascript:' i]").count() == 0
    if name != "search":
        assert SHOWN in page.locator("body").inner_text() or page.get_by_text(SHOWN).count()
    assert "49{%" not in page.content()


def test_an_attack_in_an_event_does_not_run(opened: Open, poisoned: Site) -> None:
    page = opened(f"{poisoned.url}/runs/{RUN}")
    expect(page.locator("cf-live")).to_have_attribute("data-state", "live")
    poisoned.store.append(Note(run_id=RUN, level="warning", message=evil("late")))
    attempt = poisoned.store.attempts(RUN)[1]
    poisoned.store.save_attempt(attempt.model_copy(update={"reason": evil("later")}))
    poisoned.store.append(
        AttemptFinished(
            run_id=RUN, attempt_id=attempt.id, round=1, action=attempt.action, verdict=attempt.verdict, reason=EVIL
        )
    )
    expect(page.locator("cf-live")).to_contain_text("Round 1")
    assert page.evaluate("window.canary") is None


def test_scripts_that_the_page_does_not_bring_are_refused(opened: Open, looked_at: Site, watched: Watched) -> None:
    """Even were something to slip through the escaping, the policy stops it."""
    watched.allowed += ["Content Security Policy", "violates"]
    page = opened(looked_at.url)
    page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.canary = 1';
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<img src="data:," onerror="window.canary = 2">');
          document.body.insertAdjacentHTML('beforeend', '<b style="position:fixed">x</b>');
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.canary") is None
    assert page.evaluate("getComputedStyle(document.body.lastElementChild).position") == "static"
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    answer = page.request.get(looked_at.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers.get("x-content-type-options") == "nosniff"
