"""A run that waits for a person: its prompt, and the form for the answer, with scripts and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert
from support.recorded_home import WAITING
from viewer.conftest import Site, Watched, becomes_true

from cudaforge.jobs import JobState
from cudaforge.store.models import JOBS
from cudaforge.trace import CallState, RunState

Open = Callable[..., Page]
REPLY = '```json\n{"critical_issue": "<b>x</b> & é 内核", "why_it_matters": "y", "minimal_fix_hint": "z"}\n```\n'


def of_the_service(site: Site) -> None:
    """Makes the recorded run, which the command line began, one that was submitted to the service."""
    job = {"id": site.runs[WAITING], "kind": "run", "submitter": "local", "state": JobState.WAITING.value}
    with site.store._database.write() as connection:
        connection.execute(insert(JOBS).values({**job, "deliveries": 0, "cancel": False, "served": ""}))


def test_a_run_of_the_command_line_says_how_it_goes_on(opened: Open, own: Site) -> None:
    page = opened(own.run(WAITING))
    page.locator("form[method=post] textarea").fill(REPLY)
    page.get_by_role("button", name="Answer").click()
    expect(page.get_by_role("main")).to_contain_text(f"cudaforge resume {own.runs[WAITING]}")
    expect(page.locator("form[method=post] textarea")).to_have_count(0)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_an_answer_is_kept_as_it_was_written_and_the_run_goes_on(opened: Open, own: Site, scripts: bool) -> None:
    (call,) = own.store.pending()
    of_the_service(own)
    page = opened(own.run(WAITING), java_script_enabled=scripts)
    prompt = page.get_by_role("main")
    for message in call.messages:
        expect(prompt).to_contain_text(message.content.strip().splitlines()[0][:60])
    answer = page.locator("form[method=post] textarea")
    answer.fill(REPLY)
    page.locator("form[method=post] button").first.click()
    expect(answer).to_have_count(0)
    stored = own.store.call(call.key)
    assert stored is not None and stored.state is CallState.DONE and stored.reply is not None
    assert stored.reply.replace("\r\n", "\n") == REPLY and "\r" not in stored.reply
    run = own.store.run(own.runs[WAITING])
    assert run is not None and run.state is RunState.QUEUED
    assert page.url.startswith(own.run(WAITING))


def test_the_prompt_can_be_copied(opened: Open, looked_at: Site) -> None:
    (call,) = looked_at.store.pending()
    page = opened(looked_at.run(WAITING), permissions=["clipboard-read", "clipboard-write"])
    page.locator("cf-copy button").first.click()
    becomes_true(page, "navigator.clipboard.readText().then(text => text.length > 100)")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert call.messages[-1].content.strip() in copied


def test_a_reply_that_comes_too_late_is_refused_in_words(opened: Open, own: Site, watched: Watched) -> None:
    first, second = opened(own.run(WAITING)), opened(own.run(WAITING), java_script_enabled=False)
    for page, text in ((first, "the first"), (second, "the second")):
        page.locator("form[method=post] textarea").fill(text)
    first.locator("form[method=post] button").first.click()
    expect(first.locator("form[method=post] textarea")).to_have_count(0)
    watched.allowed += ["409", "422"]
    second.locator("form[method=post] button").first.click()
    expect(second.locator("body")).to_contain_text("reply")
    kept = [call.reply for call in own.store.calls(own.runs[WAITING])]
    assert "the first" in kept and "the second" not in kept


def test_a_page_of_another_site_cannot_answer(opened: Open, own: Site, watched: Watched) -> None:
    """The form of another origin: refused, whatever the browser sends along."""
    (call,) = own.store.pending()
    page = opened(own.run(WAITING))
    action = page.locator("form[method=post]:has(textarea)").get_attribute("action") or own.run(WAITING)
    target = action if action.startswith("http") else f"{own.url}{action}"
    watched.allowed += ["403", "404"]  # the refusal is no page, so the browser asks for its icon
    hostile = opened("about:blank")
    hostile.set_content(
        f'<form method=post action="{target}"><input name=text value=evil><input name=key value="{call.key}"></form>'
    )
    hostile.evaluate("document.forms[0].submit()")
    expect(hostile.locator("body")).to_contain_text("another site")
    stored = own.store.call(call.key)
    assert stored is not None and stored.reply is None
