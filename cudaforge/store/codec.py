"""Vocabulary object <-> JSON text, with nothing lost.

Not pydantic's own JSON: it refuses lone surrogates, which models and broken sources do contain, and turns infinity
and NaN into null. Python's json escapes the former and writes `Infinity` and `NaN` for the latter.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from cudaforge.errors import StoreError
from cudaforge.evaluation import Baseline, Evaluation, Result, Verification
from cudaforge.trace import Event
from cudaforge_profiling.types import Profile

ModelT = TypeVar("ModelT", bound=BaseModel)

RESULT_KINDS: dict[str, type[Baseline] | type[Evaluation] | type[Profile] | type[Verification]] = {
    "baseline": Baseline,
    "evaluation": Evaluation,
    "profile": Profile,
    "verification": Verification,
}
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


def encode(value: BaseModel) -> str:
    """The whole object as ASCII JSON."""
    return json.dumps(value.model_dump(mode="json"), separators=(",", ":"))


def decode(model: type[ModelT], body: str, what: str) -> ModelT:
    """Reads what `encode` wrote; `what` names the record in the StoreError where it cannot be read."""
    try:
        return model.model_validate(json.loads(body))
    except (ValidationError, ValueError) as error:
        raise _unreadable(what, error) from error


def decode_result(kind: str, body: str, what: str) -> Result:
    """Reads a result of one of RESULT_KINDS."""
    if kind not in RESULT_KINDS:
        raise _unreadable(what, ValueError(f"unknown kind {kind!r}"))
    return decode(RESULT_KINDS[kind], body, what)


def decode_event(body: str, what: str) -> Event:
    """Reads an event by its `type`."""
    try:
        return _EVENTS.validate_python(json.loads(body))
    except (ValidationError, ValueError) as error:
        raise _unreadable(what, error) from error


def kind_of(result: Result) -> str:
    """The name under which RESULT_KINDS finds the result's class again."""
    return next(kind for kind, model in RESULT_KINDS.items() if isinstance(result, model))


def stamp(moment: datetime) -> str:
    """`2026-01-31T12:00:00.000000Z`: fixed width, UTC, so that text sorts as time. A naive time is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """Reads what `stamp` wrote."""
    return datetime.fromisoformat(text)


def plain(text: str) -> str:
    """Free text for a column: SQLite stores UTF-8, which has no lone surrogates. The body keeps them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _unreadable(what: str, error: Exception) -> StoreError:
    first = str(error).splitlines()[0]
    return StoreError(
        f"{what} cannot be read: {first}.",
        "It is damaged or was written by another version of CudaForge; update, or restore a copy from backups/.",
    )
