"""The spool: a folder that carries requests to evaluators and results back, and nothing else. Files only, no waiting.

| folder        | a file in it                                                                         |
|---------------|--------------------------------------------------------------------------------------|
| `requests/`   | `STEM.DEATHS.json`: a request that nobody works on; the JSON of a `Request`          |
| `claimed/`    | `STEM.DEATHS.OWNER.json`: the same file, while evaluator OWNER works on it           |
| `results/`    | `STEM.json`: an `Outcome`, a result or the reason why there is none                  |
| `evaluators/` | `OWNER.json`: a `Heartbeat`; OWNER touches it for as long as it lives                |
| `rejected/`   | what could not be read, and errors already delivered, each with a `.reason.txt`      |
| `tmp/`        | files being written; also probes of the file system's clock                          |

STEM is a hash of the request's key; DEATHS counts the evaluators that died at work on it. All state is in places and
names, so every step is one atomic operation of the file system and has one winner:

- claim: rename from `requests/` to a name in `claimed/` that only this evaluator uses;
- lease: a claim holds while its owner's heartbeat is fresh. Ages are differences of mtimes that the file system gave
  (`utime` without a time), never of a host's clock: hosts may disagree about the time;
- expiry: rename back to `requests/` with DEATHS + 1. At `MAX_DEATHS` the request gets an error for an outcome instead;
- result: written whole to `tmp/`, then hard-linked into `results/`, which fails where a result is: the first one wins,
  and the late result of an evaluator that had lost its lease changes nothing.

The folder may be on NFS; what a host sees there can be late by the attribute cache (up to a minute by default), which
costs time and never a request or a second result. Leases should be longer than that cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from cudaforge.errors import CudaForgeError, EvaluatorError, TaskError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Request,
    Result,
    Verification,
    VerifyRequest,
)
from cudaforge_profiling.types import Frozen, Profile

MAX_DEATHS = 3
"""Evaluators that may die at work on one request before it is given up."""
POISON_HINT = "Look at the evaluators' logs and limits (memory, time); `cudaforge resume RUN` asks again."
STALE_TMP_S = 24 * 3600.0

AnyRequest = BaselineRequest | EvaluateRequest | ProfileRequest | VerifyRequest
_REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(Request)
_REQUEST_NAME = re.compile(r"(?P<stem>[0-9a-f]{32})\.(?P<deaths>\d{1,3})\.json")
_CLAIM_NAME = re.compile(r"(?P<stem>[0-9a-f]{32})\.(?P<deaths>\d{1,3})\.(?P<owner>[A-Za-z0-9_-]{1,100})\.json")


class Heartbeat(BaseModel):
    """An evaluator that is alive while this file's mtime is younger than `lease_s`. Other versions may add fields."""

    lease_s: float = Field(gt=0, le=86400)
    host: str = ""
    pid: int = 0


class Outcome(Frozen):
    """What came of a request: a result, or the reason why there is none."""

    key: str
    work: str
    """What `work_of` says of the request: kind, task and kernel."""
    evaluator: str = ""
    seconds: float = 0.0
    result: Baseline | Evaluation | Profile | Verification | None = None
    error: str = ""
    hint: str = ""
    blame: Literal["evaluator", "task"] = "evaluator"
    """Whether the error is an EvaluatorError or a TaskError: a task that cannot run fails everywhere."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Outcome:
        if (self.result is None) == (not self.error):
            raise ValueError("an outcome is a result or an error")
        return self

    @classmethod
    def of(cls, request: AnyRequest, result: Result, evaluator: str, seconds: float) -> Outcome:
        """The outcome of a request that was answered."""
        return cls(key=_plain(request.key), work=work_of(request), evaluator=evaluator, seconds=seconds, result=result)

    @classmethod
    def failure(cls, request: AnyRequest | None, evaluator: str, error: str | Exception, hint: str = "") -> Outcome:
        """The outcome of a request that no evaluator could answer; None stands for one that cannot be read."""
        key, work = (_plain(request.key), work_of(request)) if request else ("", "")
        blame: Literal["evaluator", "task"] = "task" if isinstance(error, TaskError) else "evaluator"
        if isinstance(error, CudaForgeError):
            text, hint = error.message, error.hint
        else:
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return cls(key=key, work=work, evaluator=evaluator, error=_plain(text), hint=_plain(hint), blame=blame)


@dataclass(frozen=True)
class Claim:
    """A request that is ours while our heartbeat is fresh."""

    path: Path
    stem: str
    deaths: int
    request: AnyRequest


def stem_of(key: str) -> str:
    """The file name of a key: 32 hex digits of its SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def work_of(request: AnyRequest) -> str:
    """What is asked for, in one line: tells two pieces of work apart that carry the same key by mistake."""
    kernel = "" if isinstance(request, BaselineRequest) else f" {request.kernel.id}"
    return f"{request.kind} {request.task.id}{kernel}"


class Spool:
    """The operations on a spool folder, for both sides. Methods raise OSError where the folder fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.requests = self.directory / "requests"
        self.claimed = self.directory / "claimed"
        self.results = self.directory / "results"
        self.evaluators = self.directory / "evaluators"
        self.rejected = self.directory / "rejected"
        self.tmp = self.directory / "tmp"

    def create(self) -> None:
        """Makes the folders that are missing. Raises EvaluatorError where the file system has no hard links."""
        for folder in (self.requests, self.claimed, self.results, self.evaluators, self.rejected, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)
        source = self._write_tmp("")
        try:
            os.link(source, source.with_suffix(".link"))
        except OSError as error:
            raise EvaluatorError(
                f"{self.directory} cannot be a spool: its file system has no hard links ({error.strerror}).",
                "Put the spool on a local disk, NFS, Lustre or the like.",
            ) from None
        finally:
            source.unlink(missing_ok=True)
            source.with_suffix(".link").unlink(missing_ok=True)

    # -- the side that asks --------------------------------------------------------------------------------------

    def submit(self, request: AnyRequest) -> None:
        """Puts a request into the spool unless it is there already."""
        stem = stem_of(request.key)
        if self._queued(stem):
            return
        # json rather than pydantic's writer: source text may hold lone surrogates, which only escapes can carry.
        source = self._write_tmp(json.dumps(request.model_dump(mode="json")))
        source.rename(self.requests / f"{stem}.0.json")
        _sync(self.requests)

    def outcome(self, key: str) -> Outcome | None:
        """What came of a key, or None. A file that is no outcome is rejected and reported as an error."""
        path = self.results / f"{stem_of(key)}.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return Outcome.model_validate_json(text)
        except ValidationError as error:
            kept = self._reject(path, f"Not an outcome: {error}")
            return Outcome.failure(None, "", "the result file cannot be read", f"It was moved to {kept}.")

    def withdraw(self, key: str, why: str) -> None:
        """Takes an outcome away, so that the next question with its key does the work anew."""
        self._reject(self.results / f"{stem_of(key)}.json", why)

    def alive(self) -> bool:
        """Whether any evaluator's heartbeat is fresh."""
        now = self._now()
        return any(self._fresh(path, now) for path in _files(self.evaluators))

    # -- the side that answers -----------------------------------------------------------------------------------

    def beat(self, owner: str, heartbeat: Heartbeat) -> None:
        """Says that `owner` is alive, now."""
        path = self.evaluators / f"{owner}.json"
        try:
            os.utime(path)  # without a time: on NFS the server's clock stamps it
        except FileNotFoundError:
            self._write_tmp(heartbeat.model_dump_json()).rename(path)

    def leave(self, owner: str) -> None:
        """Says that `owner` claims nothing and will claim nothing more."""
        (self.evaluators / f"{owner}.json").unlink(missing_ok=True)

    def claim(self, owner: str) -> Claim | None:
        """Takes the oldest request that nobody works on, or returns None."""
        waiting = []
        for path in _files(self.requests):
            match = _REQUEST_NAME.fullmatch(path.name)
            if match is None:
                self._reject(path, "The name is not that of a request.")
                continue
            with suppress(FileNotFoundError):
                waiting.append((path.stat().st_mtime, path, match["stem"], int(match["deaths"])))
        busy = {match["stem"] for p in _files(self.claimed) if (match := _CLAIM_NAME.fullmatch(p.name))}
        for _, path, stem, deaths in sorted(waiting):
            if stem in busy:
                continue  # a request that was put in twice: it ends when its other copy has a result
            ours = self.claimed / f"{stem}.{deaths}.{owner}.json"
            with suppress(FileNotFoundError):  # another was faster; or NFS repeated a rename that had succeeded
                path.rename(ours)
            claim = self._accept(ours, stem, deaths, owner)
            if claim is not None:
                return claim
        return None

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Gives the outcome and ends the claim. False where another evaluator's outcome was first."""
        first = self._publish(claim.stem, outcome)
        claim.path.unlink(missing_ok=True)
        return first

    def give_back(self, claim: Claim) -> None:
        """Ends a claim without an outcome, with nobody's death to count."""
        with suppress(FileNotFoundError):
            claim.path.rename(self.requests / f"{claim.stem}.{claim.deaths}.json")

    def reap(self) -> list[str]:
        """Puts the claims of dead evaluators back among the requests; one line for each."""
        # Claims before heartbeats: an evaluator beats before it claims, so none is seen here without its heartbeat.
        claims = list(_files(self.claimed))
        now = self._now()
        done = []
        for path in claims:
            match = _CLAIM_NAME.fullmatch(path.name)
            if match is None:
                self._reject(path, "The name is not that of a claim.")
                continue
            stem, deaths, owner = match["stem"], int(match["deaths"]) + 1, match["owner"]
            if self._fresh(self.evaluators / f"{owner}.json", now):
                continue
            with suppress(FileNotFoundError):  # another evaluator was faster
                if deaths < MAX_DEATHS:
                    path.rename(self.requests / f"{stem}.{deaths}.json")
                    done.append(f"{stem}: {owner} is gone, the request waits again")
                else:
                    request = _read_request(path, stem)
                    error = f"{deaths} evaluators in a row died at work on it"
                    readable = None if isinstance(request, str) else request
                    self._publish(stem, Outcome.failure(readable, owner, error, POISON_HINT))
                    path.unlink()
                    done.append(f"{stem}: given up, {deaths} evaluators died at work on it")
        for path in _files(self.evaluators):
            # One that only slept writes its heartbeat anew; its claims are not lost either way: first result wins.
            if not self._fresh(path, now):
                path.unlink(missing_ok=True)
        return done

    def sweep(self) -> None:
        """Deletes what writers that died left in tmp/."""
        now = self._now()
        for path in _files(self.tmp):
            with suppress(OSError):
                if now - path.stat().st_mtime > STALE_TMP_S:
                    path.unlink()

    # -- parts ---------------------------------------------------------------------------------------------------

    def _queued(self, stem: str) -> bool:
        return any(path.name.startswith(stem) for folder in (self.requests, self.claimed) for path in _files(folder))

    def _accept(self, path: Path, stem: str, deaths: int, owner: str) -> Claim | None:
        """The claim in `path`, if the rename gave it to us, its work is still to be done and it can be read."""
        if not path.exists():
            return None
        if (self.results / f"{stem}.json").exists():  # an evaluator that had lost its lease was not so dead
            path.unlink(missing_ok=True)
            return None
        request = _read_request(path, stem)
        if isinstance(request, str):
            kept = self._reject(path, request)
            self._publish(stem, Outcome.failure(None, owner, request, f"The file was moved to {kept}."))
            return None
        return Claim(path, stem, deaths, request)

    def _publish(self, stem: str, outcome: Outcome) -> bool:
        """Puts an outcome in its place whole; False where one was there."""
        try:
            text = outcome.model_dump_json()
            Outcome.model_validate_json(text)
        except ValueError as error:  # e.g. infinity, or text that is not Unicode, in a result
            text = Outcome(
                key=outcome.key,
                work=outcome.work,
                evaluator=outcome.evaluator,
                error=_plain(f"the result cannot be carried as JSON: {str(error)[:2000]}"),
            ).model_dump_json()
        source = self._write_tmp(text)
        try:
            os.link(source, self.results / f"{stem}.json")
        except FileExistsError:
            return False
        finally:
            source.unlink()
        _sync(self.results)
        return True

    def _reject(self, path: Path, reason: str) -> Path:
        """Moves a file to rejected/ and says why. What cannot be moved stays and harms nobody."""
        kept = self.rejected / f"{path.name[:150]}.{secrets.token_hex(4)}"
        with suppress(OSError):
            path.rename(kept)
            Path(f"{kept}.reason.txt").write_text(_plain(reason) + "\n", encoding="utf-8")
        return kept

    def _fresh(self, path: Path, now: float) -> bool:
        """Whether a heartbeat file exists, is one, and is younger than its lease."""
        try:
            with path.open("rb") as file:  # opened, because NFS asks the server for the mtime then
                age = abs(now - os.fstat(file.fileno()).st_mtime)
                return age <= Heartbeat.model_validate_json(file.read()).lease_s
        except OSError:
            return False
        except ValidationError as error:
            self._reject(path, f"Not a heartbeat: {error}")
            return False

    def _now(self) -> float:
        """The file system's time, in seconds: the mtime of a file touched just now."""
        probe = self._write_tmp("")
        try:
            os.utime(probe)
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _write_tmp(self, text: str) -> Path:
        """A new file in tmp/, on the disk for good, with the permissions that the umask gives."""
        path = self.tmp / secrets.token_hex(8)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            if text:
                file.flush()
                os.fsync(file.fileno())
        return path


def _read_request(path: Path, stem: str) -> AnyRequest | str:
    """The request in a file, or why there is none. Raises FileNotFoundError."""
    try:
        request = _REQUEST.validate_python(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        return f"not a request that this version reads: {str(error)[:2000]}"
    if stem_of(request.key) != stem:
        return "the file's name is not that of the request's key"
    return request


def _files(folder: Path) -> Iterator[Path]:
    """What is in a folder, except dot files: those are NFS's and other tools' own."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _plain(text: str) -> str:
    """Text that JSON in UTF-8 can carry."""
    return text.encode("utf-8", "backslashreplace").decode()


def _sync(folder: Path) -> None:
    """Makes a new name in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
