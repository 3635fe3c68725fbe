"""Who may ask: tokens, scopes, and a browser on the same machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api.conftest import Start, new_run
from fastapi.testclient import TestClient

from cudaforge.errors import UsageError
from cudaforge.store.sqlite import SqliteStore
from cudaforge_api.app import create_app
from cudaforge_api.settings import Settings

Headers = Callable[..., dict[str, str]]


def name_of(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code and problem["title"] and problem["detail"]
    return str(problem["type"]).removeprefix("urn:cudaforge:problem:")


def test_on_loopback_nobody_needs_a_token_and_may_do_everything(client: TestClient) -> None:
    about = client.get("/about").json()
    assert (about["caller"], about["scope"]) == ("local", "admin")
    assert client.post("/runs", json=new_run()).status_code == 201
    assert client.get("/queue").json()["queued"] == 1


@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}])
def test_where_tokens_are_demanded_nothing_goes_without(start: Start, sent: dict[str, str]) -> None:
    client = start(require_token=True)
    for method, path in (("GET", "/runs"), ("POST", "/runs"), ("GET", "/stream"), ("GET", "/about")):
        answer = client.request(method, path, headers=sent, json=new_run() if method == "POST" else None)
        assert name_of(answer) == "unauthenticated" and answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/health").status_code == 200 and client.get("/ready").status_code == 503


def test_a_token_that_is_sent_must_be_valid_even_where_none_is_needed(client: TestClient) -> None:
    assert name_of(client.get("/runs", headers={"Authorization": "Bearer cf_x"})) == "unauthenticated"


def test_scopes(start: Start, token: Headers) -> None:
    client = start(require_token=True)
    read, submit, other, admin = token("read"), token("submit"), token("submit", "other"), token("admin")
    assert client.get("/runs", headers=read).status_code == 200
    assert name_of(client.post("/runs", json=new_run(), headers=read)) == "forbidden"
    run = client.post("/runs", json=new_run(), headers=submit).json()["id"]
    assert client.get(f"/runs/{run}", headers=read).status_code == 200
    assert name_of(client.post(f"/runs/{run}/cancel", headers=other)) == "forbidden"
    assert name_of(client.post(f"/runs/{run}/reply", json={"text": "x"}, headers=other)) == "forbidden"
    assert name_of(client.get("/queue", headers=submit)) == "forbidden"
    assert client.get("/queue", headers=admin).status_code == 200
    assert client.post(f"/runs/{run}/cancel", headers=admin).json()["state"] == "stopped"
    assert client.post(f"/runs/{run}/resume", headers=submit).json()["state"] == "queued"
    mine = client.get("/runs", params={"mine": True}, headers=other).json()["items"]
    assert mine == [] and len(client.get("/runs", params={"mine": True}, headers=submit).json()["items"]) == 1


def test_a_revoked_token_counts_for_nothing_at_once(start: Start, token: Headers, record: SqliteStore) -> None:
    client = start(require_token=True)
    headers = token("read")
    assert client.get("/runs", headers=headers).status_code == 200
    record.tokens.revoke("read")
    assert name_of(client.get("/runs", headers=headers)) == "unauthenticated"


def test_a_page_of_another_site_can_do_nothing(client: TestClient) -> None:
    # DNS rebinding: the page's own host name leads here, and the browser sends it.
    assert name_of(client.get("/runs", headers={"Host": "evil.example:8000"})) == "unknown-host"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert name_of(client.post("/runs", json=new_run(), headers=headers)) == "cross-origin"
    assert client.post("/runs", json=new_run(), headers={"Origin": "http://localhost"}).status_code == 201
    assert "access-control-allow-origin" not in client.get("/runs", headers={"Origin": "http://evil.example"}).headers


def test_a_form_of_another_kind_is_refused(client: TestClient) -> None:
    answer = client.post("/runs", content="{}", headers={"Content-Type": "text/plain"})
    assert name_of(answer) == "invalid"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_any_other_address_demands_tokens(cudaforge_home: Path, host: str) -> None:
    with pytest.raises(UsageError, match="tokens must be required"):
        create_app(Settings(home=cudaforge_home, host=host))


def test_a_service_with_tokens_answers_under_any_name(start: Start, token: Headers) -> None:
    client = start(require_token=True, host="0.0.0.0")
    assert client.get("/runs", headers={**token("read"), "Host": "forge.example"}).status_code == 200


def test_secrets_are_in_no_answer_and_in_no_log(
    start: Start, token: Headers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    client = start(require_token=True)
    headers = token("admin")
    secret = headers["Authorization"].removeprefix("Bearer ")
    run = client.post("/runs", json=new_run(coder="openai:some-model"), headers=headers).json()["id"]
    paths = ["/about", "/queue", "/runs", f"/runs/{run}", f"/runs/{run}/events", "/openapi.json", "/nothing"]
    texts = [client.get(path, headers=headers).text for path in paths]
    texts += [client.get("/runs", headers={"Authorization": f"Bearer {secret}x"}).text, caplog.text]
    assert not [text for text in texts if secret in text or "sk-very-secret" in text]
