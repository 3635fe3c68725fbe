import json
from typing import Any

import pytest
from support.briefings import DIAGNOSIS, PLAN

from cudaforge.agents.judge import (
    DIAGNOSIS_SCHEMA,
    PAPER_PLAN_SCHEMA,
    PLAN_SCHEMA,
    parse_diagnosis,
    parse_plan,
    plan_schema,
)
from cudaforge.errors import ReplyError
from cudaforge.trace import PRESETS

FIELDS = DIAGNOSIS.model_dump()
FULL = PLAN.model_dump(mode="json")


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(FIELDS),
        f"```json\n{json.dumps(FIELDS, indent=2)}\n```",
        f"The error is clear {{see line 3}}.\n\n{json.dumps(FIELDS)}\n\nHope this helps {{}}.",
        f'<think>{{"critical_issue": "wrong"}}</think>{json.dumps(FIELDS)}',
        f"First try: {json.dumps(dict.fromkeys(FIELDS, 'x'))}\nBetter: {json.dumps(FIELDS)}",
        json.dumps({**FIELDS, "confidence": 0.9}),
        json.dumps({"Critical Issue": "ISSUE-MARK", "why-it-matters": "WHY-MARK", "Minimal_Fix_Hint": " HINT-MARK "}),
        json.dumps(FIELDS, indent=2).replace("\n", "\r\n"),
    ],
)
def test_a_diagnosis_is_found_wherever_it_stands(reply: str) -> None:
    assert parse_diagnosis(reply) == DIAGNOSIS


def test_real_newlines_in_strings_are_taken() -> None:
    assert parse_diagnosis(json.dumps(FIELDS).replace("HINT-MARK", "a\nb")).minimal_fix_hint == "a\nb"


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("", "the reply holds no JSON object; one with the fields critical_issue, why_it_matters, minimal_fix_hint"),
        ("I would say the index is wrong.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"critical_issue": "x", "why_it_matters": "y",', "no JSON object"),
        ('{"critical_issue": "x", "why_it_matters": "y"}', "minimal_fix_hint: Field required"),
        (json.dumps({**FIELDS, "critical_issue": "  "}), "critical_issue must not be empty"),
        (json.dumps({**FIELDS, "critical_issue": ["a"]}), "critical_issue: Input should be a valid string"),
        ("{}", "critical_issue: Field required"),
        ('{"a":' * 50_000, "no JSON object"),
        ("{" * 500_000, "no JSON object"),
    ],
)
@pytest.mark.timeout(20)
def test_an_unusable_diagnosis_says_what_is_wrong(reply: str, complaint: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_diagnosis(reply)
    assert complaint in caught.value.message


def test_a_plan_is_read() -> None:
    assert parse_plan(f"```json\n{json.dumps(FULL)}\n```") == PLAN


@pytest.mark.parametrize("gain", [1.25, "1.25", "1.25x", "~1.25 ×"])
def test_a_gain_may_be_written_as_a_factor(gain: Any) -> None:
    assert parse_plan(json.dumps({**FULL, "predicted_gain": gain})).predicted_gain == 1.25


def test_numbers_in_evidence_and_a_single_step_are_taken_as_text() -> None:
    plan = parse_plan(json.dumps({**FULL, "evidence": [{"metric": "dram", "value": 91}], "steps": "tile"}))
    assert plan.evidence[0].value == "91" and plan.steps == ("tile",)


@pytest.mark.parametrize("method", ["optimisation method", "optimization method", "Optimization_Method"])
def test_the_papers_three_fields_make_a_plan_without_a_prediction(method: str) -> None:
    plan = parse_plan(json.dumps({"bottleneck": "memory", method: "fuse", "modification plan": "merge both loops"}))
    assert (plan.bottleneck, plan.method, plan.steps) == ("memory", "fuse", ("merge both loops",))
    assert plan.predicted_gain is None and plan.evidence == ()


def without(*names: str) -> str:
    return json.dumps({name: value for name, value in FULL.items() if name not in names})


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (without("predicted_gain"), "predicted_gain is missing"),
        (json.dumps({**FULL, "predicted_gain": None}), "predicted_gain is missing"),
        (json.dumps({**FULL, "predicted_gain": -1}), "predicted_gain: Input should be greater than 0"),
        (json.dumps({**FULL, "predicted_gain": float("inf")}), "predicted_gain"),
        (json.dumps({**FULL, "predicted_gain": float("nan")}), "predicted_gain"),
        (json.dumps({**FULL, "predicted_gain": "30 %"}), "predicted_gain: Input should be a valid number"),
        (json.dumps({**FULL, "steps": []}), "steps is empty"),
        (json.dumps({**FULL, "steps": [1]}), "steps.0: Input should be a valid string"),
        (json.dumps({**FULL, "evidence": ["dram 91 %"]}), "evidence.0"),
        (without("method"), "method: Field required"),
        ('{"bottleneck": "x", "optimisation method": "y"}', "steps is empty"),
        ('{"bottleneck": "x", "modification plan": "y"}', "method must not be empty"),
    ],
)
def test_an_unusable_plan_says_what_is_wrong(reply: str, complaint: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_plan(reply)
    assert complaint in caught.value.message


def test_what_has_no_utf8_is_replaced() -> None:
    plan = parse_plan(json.dumps({**FULL, "method": "a \ud800 b", "steps": ["\udfff"]}))
    plan.model_dump_json().encode("utf-8")


def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object schema within `schema`."""
    below = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return [s for s in [schema] if s["type"] == "object"] + [s for part in below for s in objects(part)]


@pytest.mark.parametrize("schema", [DIAGNOSIS_SCHEMA, PLAN_SCHEMA, PAPER_PLAN_SCHEMA])
def test_schemas_are_strict(schema: dict[str, Any]) -> None:
    assert schema["type"] == "object"
    for found in objects(schema):
        assert found["additionalProperties"] is False
        assert found["required"] == list(found["properties"])


def test_replies_of_each_schemas_form_are_read() -> None:
    assert set(DIAGNOSIS_SCHEMA["properties"]) == set(FIELDS)
    assert set(PLAN_SCHEMA["properties"]) == set(FULL)
    assert plan_schema(PRESETS["default"]) is PLAN_SCHEMA
    assert plan_schema(PRESETS["paper"]) is PAPER_PLAN_SCHEMA
    parse_plan(json.dumps(dict.fromkeys(PAPER_PLAN_SCHEMA["properties"], "x")))
