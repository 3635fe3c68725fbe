"""Where `demo` finds its task and its recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from cudaforge import examples
from cudaforge.errors import UsageError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "toy.py").write_text("")
    for folder, language in (("toy_cpp", "cpp"), ("toy_cuda", "cuda"), ("toy_two_cuda", "cuda")):
        recording = tmp_path / "recordings" / folder
        recording.mkdir(parents=True)
        (recording / "recording.toml").write_text(
            f'title = "Toy"\nmade_by = "a person"\nnote = "By hand."\nlanguage = "{language}"\n'
        )
        for number in range(3):
            (recording / f"coder-{number:02d}.md").write_text("")
    return tmp_path


def test_an_example_is_a_task_and_its_recording_in_the_language(place: Path) -> None:
    found = examples.find("toy", "cuda", place)
    assert (found.task, found.recording) == (place / "tasks" / "toy.py", place / "recordings" / "toy_cuda")
    assert found.rounds == 3
    said = found.announcement()
    assert "recorded" in said and "a person" in said and "Everything else is live" in said


@pytest.mark.parametrize(
    ("name", "language", "message", "hint"),
    [("toys", "cpp", "no example 'toys'", "toy"), ("toy", "triton", "no triton recording", "toy_cpp, toy_cuda")],
)
def test_what_is_not_there_is_told_with_what_is(place: Path, name: str, language: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        examples.find(name, language, place)
    assert hint in caught.value.hint


def test_the_examples_of_a_checkout_or_a_wheel_are_found() -> None:
    assert (examples.folder() / "tasks" / f"{examples.DEFAULT}.py").is_file()
