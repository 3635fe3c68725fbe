"""Where the bundled examples are: tasks, and recordings of models' replies to them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cudaforge.errors import UsageError

DEFAULT = "layer_norm_bias"


@dataclass(frozen=True)
class Example:
    """A task with a recording for one language."""

    task: Path
    recording: Path
    title: str
    made_by: str
    note: str

    @property
    def rounds(self) -> int:
        """As many as the recording has replies of the Coder."""
        return len(list(self.recording.glob("coder-*.md")))

    def announcement(self) -> str:
        """What is recorded and what is live."""
        return (
            f"Demo: the models' replies are recorded ({self.title}; written by {self.made_by}). {self.note} "
            "Everything else is live: the compiler runs, outputs are compared and times are measured on this machine."
        )


def folder() -> Path:
    """The examples: package data of a wheel, or examples/ of a checkout. Raises UsageError where neither is there."""
    packaged = Path(str(resources.files("cudaforge"))) / "demo_data"
    checkout = Path(__file__).resolve().parents[1] / "examples"
    for place in (packaged, checkout):
        if (place / "tasks").is_dir() and (place / "recordings").is_dir():
            return place
    raise UsageError("This installation has no examples.", "Install the wheel or work in a checkout of the repository.")


def find(name: str, language: str, place: Path | None = None) -> Example:
    """The example of this name with a recording in this language. Raises UsageError with what there is."""
    place = place or folder()
    task = place / "tasks" / f"{name}.py"
    if not task.is_file():
        known = ", ".join(sorted(path.stem for path in (place / "tasks").glob("*.py")))
        raise UsageError(f"There is no example {name!r}.", f"Examples: {known}.")
    for recording in sorted((place / "recordings").iterdir()):
        if recording.name not in (name, f"{name}_{language}", f"{name}-{language}"):
            continue
        meta = tomllib.loads((recording / "recording.toml").read_text(encoding="utf-8"))
        if meta.get("language") == language:
            texts = (str(meta.get(field, "")).strip() for field in ("title", "made_by", "note"))
            return Example(task, recording, *texts)
    known = ", ".join(sorted(path.name for path in (place / "recordings").iterdir() if path.is_dir()))
    raise UsageError(f"Example {name!r} has no {language} recording.", f"Recordings: {known}.")
