"""The OpenAPI document: stored, complete, and told in docs/service.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from cudaforge.trace import Event
from cudaforge_api.app import PREFIX
from cudaforge_api.openapi import document
from cudaforge_api.problems import PROBLEMS

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "service.md").read_text()


def operations(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path.removeprefix(PREFIX)}": operation
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    }


def test_the_stored_copy_is_the_one_that_is_served() -> None:
    assert (DOCS / "openapi.json").read_text() == document(), "the routes have changed: run `make openapi`"


def test_every_route_is_told_and_every_told_route_is_there() -> None:
    table = TEXT.split("## Routes")[1].split("## Events")[0]
    assert set(re.findall(r"`((?:GET|POST) /[^`]*)`", table)) - {"GET /api/v1/openapi.json"} == set(
        operations(json.loads(document()))
    )


def test_every_route_says_what_it_does_and_which_errors_it_has() -> None:
    for name, operation in operations(json.loads(document())).items():
        assert operation.get("description"), name
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and "application/json" not in answer["content"]:
                assert answer["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem"), name


def test_every_problem_is_told_with_its_status() -> None:
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", TEXT, re.MULTILINE))
    assert {name: str(status) for name, (status, _) in PROBLEMS.items()} == told


def test_every_event_is_told() -> None:
    types = {member.model_fields["type"].default for member in get_args(get_args(Event)[0])}
    told = TEXT.split("Types: ")[1].split(";")[0]
    assert set(re.findall(r"`(\w+)`", told)) == types
