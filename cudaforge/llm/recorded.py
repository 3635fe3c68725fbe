"""`recorded:FOLDER`: replays stored replies by role and position; no network, no key, no cost."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from cudaforge.errors import ModelError, UsageError
from cudaforge.kernel import Language
from cudaforge.ports import ChatReply, ChatRequest
from cudaforge.trace import Usage
from cudaforge_profiling.types import Frozen


class Recording(Frozen):
    """What `recording.toml` says of a recording."""

    title: str
    made_by: str
    """The model or person that wrote the replies."""
    note: str
    """How it was made."""
    language: Language


class RecordedModel:
    """Answers the n-th question to a role with `ROLE-NN.md` (from 00), the reply as the model gave it."""

    def __init__(self, folder: Path) -> None:
        """Reads `recording.toml`; replies are read when they are asked for.

        Raises:
            UsageError: `folder` is not a recording.
        """
        self.folder = folder
        self.recording = _read(folder / "recording.toml")

    @property
    def name(self) -> str:
        return f"recorded:{self.folder.resolve().name}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        path = self.folder / f"{request.role.value}-{request.position:02d}.md"
        try:
            # Bytes, not read_text: that would turn \r\n into \n, and a reply is replayed as it was.
            text = path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            raise ModelError(
                f"The recording has ended: {path} is not there.",
                "Add that reply to the recording, or start a new run with fewer rounds.",
            ) from None
        except (OSError, UnicodeDecodeError) as err:
            raise ModelError(f"A reply of the recording cannot be read: {path}: {err}.") from None
        return ChatReply(text=text, model=self.name, usage=self.worst_case(request))

    def worst_case(self, request: ChatRequest) -> Usage:
        return Usage(usd=0.0)


def _read(path: Path) -> Recording:
    hint = (
        "A recording is a folder with recording.toml (title, made_by, note, language) and coder-00.md, judge-00.md, ..."
    )
    try:
        return Recording.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError:
        raise UsageError(f"{path.parent} is not a recording: it has no recording.toml.", hint) from None
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg']}.", hint) from None
    except ValueError as err:  # TOMLDecodeError, UnicodeDecodeError
        raise UsageError(f"{path}: {err}.", hint) from None
