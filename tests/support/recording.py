"""Recordings of chosen replies, for tests that name their models as a user does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

TOML = 'title = "a test"\nmade_by = "a person"\nnote = "for a test"\nlanguage = "{language}"\n'


def record(folder: Path, coder: Sequence[str] = (), judge: Sequence[str] = (), language: str = "module") -> str:
    """Writes a recording and returns the name of its model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recording.toml").write_text(TOML.format(language=language))
    for role, replies in (("coder", coder), ("judge", judge)):
        for number, reply in enumerate(replies):
            (folder / f"{role}-{number:02}.md").write_text(reply)
    return f"recorded:{folder}"
