"""RecordedModel replays what is in its folder, byte for byte, and says so when that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cudaforge.errors import ModelError, UsageError
from cudaforge.llm.recorded import RecordedModel
from cudaforge.ports import ChatRequest
from cudaforge.trace import Usage

Question = Callable[..., ChatRequest]
TOML = 'title = "Row softmax"\nmade_by = "a model"\nnote = "by hand"\nlanguage = "cpp"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "row_softmax"
    folder.mkdir()
    (folder / "recording.toml").write_text(TOML, encoding="utf-8")
    return folder


def test_shows_what_it_is(folder: Path) -> None:
    model = RecordedModel(folder)
    assert model.name == "recorded:row_softmax"
    assert (model.recording.title, model.recording.made_by) == ("Row softmax", "a model")
    assert (model.recording.note, model.recording.language) == ("by hand", "cpp")


def test_answers_by_role_and_position_at_no_cost(folder: Path, question: Question) -> None:
    for name in ("coder-00", "coder-01", "judge-00", "coder-100"):
        (folder / f"{name}.md").write_bytes(f"{name} µs\r\n".encode())
    model = RecordedModel(folder)
    for request, name in [
        (question(0), "coder-00"),
        (question(1), "coder-01"),
        (question(0, structured=True), "judge-00"),
        (question(100), "coder-100"),
    ]:
        reply = asyncio.run(model.complete(request))
        assert reply.text == f"{name} µs\r\n"
        assert reply.usage == Usage(usd=0.0)


def test_a_recording_that_has_ended_names_the_file(folder: Path, question: Question) -> None:
    with pytest.raises(ModelError, match=r"has ended: .*row_softmax/coder-07\.md"):
        asyncio.run(RecordedModel(folder).complete(question(7)))


def test_a_reply_that_is_no_text_is_not_replayed(folder: Path, question: Question) -> None:
    (folder / "coder-00.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"coder-00\.md"):
        asyncio.run(RecordedModel(folder).complete(question()))


def test_a_folder_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recording\.toml"):
        RecordedModel(tmp_path)


@pytest.mark.parametrize("toml", ["title = ", 'title = "t"\n', TOML + "extra = 1\n", TOML.replace("cpp", "cobol")])
def test_metadata_that_is_not_whole_is_refused(folder: Path, toml: str) -> None:
    (folder / "recording.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(UsageError, match=r"recording\.toml: ") as raised:
        RecordedModel(folder)
    assert "made_by" in raised.value.hint
