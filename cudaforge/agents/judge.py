"""Judge: reads failures and profiles. Prompts in, a Diagnosis or a Plan out."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cudaforge.agents.briefing import Briefing, kernel_context
from cudaforge.agents.evidence import failure
from cudaforge.agents.measurements import profile_context
from cudaforge.agents.reply import json_object, key_form, normalize
from cudaforge.errors import ReplyError
from cudaforge.evaluation import Evaluation
from cudaforge.kernel import Kernel
from cudaforge.trace import Diagnosis, Message, Plan, Preset
from cudaforge_profiling.types import Profile


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema as structured output wants it: everything required, nothing else allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


T = TypeVar("T", bound=BaseModel)
TEXT = {"type": "string"}

DIAGNOSIS_SCHEMA: dict[str, Any] = _object(critical_issue=TEXT, why_it_matters=TEXT, minimal_fix_hint=TEXT)

PLAN_SCHEMA: dict[str, Any] = _object(
    bottleneck=TEXT,
    evidence={"type": "array", "items": _object(metric=TEXT, value=TEXT)},
    method=TEXT,
    steps={"type": "array", "items": TEXT},
    predicted_gain={"type": "number"},
)

PAPER_PLAN_SCHEMA: dict[str, Any] = _object(
    **{"bottleneck": TEXT, "optimisation method": TEXT, "modification plan": TEXT}
)


def plan_schema(preset: Preset) -> dict[str, Any]:
    """The schema of the plan that `advise` asks for under `preset`."""
    return PAPER_PLAN_SCHEMA if preset.name.split("-")[0] == "paper" else PLAN_SCHEMA


def diagnose(briefing: Briefing, kernel: Kernel, evaluation: Evaluation) -> tuple[Message, ...]:
    """Asks why a kernel failed."""
    return briefing.messages(
        "judge",
        "diagnose",
        **kernel_context(kernel, "The kernel"),
        evaluation=evaluation,
        failure=failure(evaluation, kernel),
    )


def advise(briefing: Briefing, kernel: Kernel, evaluation: Evaluation, profile: Profile | None) -> tuple[Message, ...]:
    """Asks what limits a kernel that passed, and what to change."""
    return briefing.messages(
        "judge",
        "advise",
        **kernel_context(kernel, "The kernel"),
        timed=evaluation if evaluation.passed else None,
        **profile_context(profile, kernel, evaluation, metrics_only=briefing.paper),
    )


def parse_diagnosis(text: str) -> Diagnosis:
    """Reads a diagnosis out of a reply: JSON, alone, fenced or inside prose. Raises ReplyError."""
    found = _fields(text, Diagnosis, DIAGNOSIS_SCHEMA)
    return _validated(Diagnosis, found)


def parse_plan(text: str) -> Plan:
    """Reads a plan out of a reply, in our form or in the paper's three fields. Raises ReplyError.

    `predicted_gain` is required in our form; the paper's has none.
    """
    found = _fields(text, Plan, PLAN_SCHEMA)
    if "optimisation_method" in found or "modification_plan" in found:
        found["method"] = found.pop("optimisation_method", "")
        found["steps"] = found.pop("modification_plan", ())
        found.pop("predicted_gain", None)
    elif "predicted_gain" not in found or found["predicted_gain"] is None:
        raise ReplyError("predicted_gain is missing: the present time / the expected time, a number such as 1.3.")
    if isinstance(found.get("steps"), str):
        found["steps"] = [found["steps"]]
    if isinstance(found.get("predicted_gain"), str):
        # `1.3x` says what is meant; `30 %` does not.
        found["predicted_gain"] = re.sub(r"^[~≈]?\s*([\d.]+)\s*[x×]?$", r"\1", found["predicted_gain"].strip())
    if isinstance(found.get("evidence"), list):
        found["evidence"] = [_fact(fact) for fact in found["evidence"]]
    plan = _validated(Plan, found)
    if not plan.steps:
        raise ReplyError("steps is empty: name at least one concrete change.")
    return plan


def _fact(fact: Any) -> Any:
    """Numbers as text, since a value may come with or without its unit."""
    if isinstance(fact, dict):
        return {key: value if isinstance(value, str) else str(value) for key, value in fact.items()}
    return fact


def _fields(text: str, model: type[BaseModel], schema: dict[str, Any]) -> dict[str, Any]:
    """The reply's JSON object, its keys in one spelling, those that `model` does not have left out."""
    known = set(model.model_fields) | {"optimisation_method", "modification_plan"}
    found = json_object(normalize(text), known)
    wanted = ", ".join(schema["properties"])
    if found is None:
        raise ReplyError(f"the reply holds no JSON object; one with the fields {wanted} was asked for.")
    return {key_form(key): _utf8(value) for key, value in found.items() if key_form(key) in known}


def _utf8(value: Any) -> Any:
    """Without lone surrogates, which JSON can spell and no database or socket can carry."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").strip()
    if isinstance(value, list):
        return [_utf8(item) for item in value]
    if isinstance(value, dict):
        return {_utf8(key): _utf8(item) for key, item in value.items()}
    return value


def _validated(model: type[T], fields: dict[str, Any]) -> T:
    empty = [name for name in model.model_fields if fields.get(name) == ""]
    if empty:
        raise ReplyError(f"{', '.join(empty)} must not be empty.")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:4]]
        raise ReplyError(f"the JSON does not fit what was asked for: {'; '.join(faults)}.") from None
