"""What can go wrong, as one tree.

CudaForgeError              one sentence, and a hint on what to do
├── UsageError              the input is not usable                        exit code 2
│   ├── ConflictError       what is asked does not fit where the run stands
│   ├── KeyReuseError       an Idempotency-Key came with another request before
│   ├── TaskError           a file is not a task; names file and line
│   └── KernelError         sources do not make a kernel of the format
├── InfrastructureError     ours or the machine's failure, never the kernel's    exit code 3
│   ├── EvaluatorError      an evaluation could not be made
│   ├── StoreError          the database or an artefact could not be read or written
│   └── ModelError          a model refused, is unknown, or cannot be reached
├── LimitError              a limit of the service is reached; later it may be accepted   exit code 3
├── ReplyError              a model's reply cannot be parsed (costs one repair question)
└── Suspended               not a failure: the run waits for a reply or a spooled evaluation   exit code 5

A kernel that does not build, crashes or is wrong is none of these: that is an Evaluation with a verdict.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the `cudaforge` command returns."""

    OK = 0
    """`evaluate`: PASSED. `optimize`, `resume`, `demo`: a verified win. Others: done."""
    NEGATIVE = 1
    """`evaluate`: any verdict on the kernel other than PASSED."""
    USAGE = 2
    INFRASTRUCTURE = 3
    NO_WIN = 4
    """`optimize`, `resume`: the run ended and found no verified win."""
    SUSPENDED = 5
    """`optimize`, `resume`: the run waits for a reply or an evaluation."""
    INTERRUPTED = 130


class CudaForgeError(Exception):
    """Base of all of ours: `message` is one sentence, `hint` says what to do about it (may be empty)."""

    exit_code: ExitCode = ExitCode.INFRASTRUCTURE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CudaForgeError):
    """The input is not usable."""

    exit_code = ExitCode.USAGE


class ConflictError(UsageError):
    """What is asked does not fit where the run stands: a reply to a run that waits for none."""


class KeyReuseError(UsageError):
    """An Idempotency-Key came with another request before."""


class TaskError(UsageError):
    """A file is not a task. `line` is 1-based, 0 where no line applies."""

    def __init__(self, message: str, hint: str = "", *, file: str = "", line: int = 0) -> None:
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(where + message, hint)
        self.file = file
        self.line = line


class KernelError(UsageError):
    """The sources do not make a kernel of the format."""


class InfrastructureError(CudaForgeError):
    """Ours or the machine's failure; never a mark against a kernel."""


class EvaluatorError(InfrastructureError):
    """An evaluation could not be made."""


class StoreError(InfrastructureError):
    """The database or an artefact could not be read or written."""


class ModelError(InfrastructureError):
    """A model refused (key, quota), is unknown, or cannot be reached after retries. Stops the run, resumable."""


class LimitError(CudaForgeError):
    """A limit of the service is reached: too many runs of one submitter, a full queue. Later it may be accepted."""


class ReplyError(CudaForgeError):
    """A model's reply cannot be parsed. `message` is fit to be shown to the model as the repair question."""


class Suspended(CudaForgeError):  # noqa: N818 - not an error: control flow that a caller must see
    """The run waits; `waiting_for` names the call or evaluation key."""

    exit_code = ExitCode.SUSPENDED

    def __init__(self, message: str, hint: str = "", *, waiting_for: str = "") -> None:
        super().__init__(message, hint)
        self.waiting_for = waiting_for
