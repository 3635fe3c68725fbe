"""What the service takes and gives beyond the shapes that it shares with the command line (cudaforge.shapes)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cudaforge.evaluation import Evaluation
from cudaforge.jobs import Scope, SingleState
from cudaforge.kernel import Language
from cudaforge.shapes import CallOutput, DeviceLine, EvaluationLine, PendingItem, RunLine, Shape, TaskLine
from cudaforge.task import TaskMeta
from cudaforge.trace import Plan, RunState, StoredEvent
from cudaforge_profiling.types import Profile

RUN_ID, TASK_ID, KERNEL_ID = r"^r[0-9a-z]{10}$", r"^t[0-9a-f]{16}$", r"^k[0-9a-f]{16}$"
EVALUATION_ID, DIGEST = r"^e[0-9a-z]{10}$", r"^[0-9a-f]{64}$"

EXAMPLE_SOURCE = (
    "import torch\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return torch.relu(x) * 2\n\n"
    "def get_inputs():\n    return [torch.randn(1024, 1024)]\n\ndef get_init_inputs():\n    return []\n"
)

# -- what is sent --------------------------------------------------------------------------------------------------


class NewTask(Shape):
    """A task: a KernelBench-style file, and what else is to be known of it."""

    name: str = Field("task", min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.\-]+$", examples=["relu_twice"])
    source: str = Field(
        min_length=1,
        examples=[EXAMPLE_SOURCE],
        description="The file's text. It is parsed here, and run only where it is confined.",
    )
    meta: TaskMeta | None = Field(None, description="In place of a .toml beside the file or CUDAFORGE inside it.")


class NewBudget(Shape):
    """When a run stops; null is no limit, or the service's."""

    rounds: int = Field(10, ge=1, le=1000)
    usd: float | None = Field(None, gt=0, le=1e6)
    seconds: float | None = Field(None, gt=0, le=1e8)
    target_speedup: float | None = Field(None, gt=0, le=1e6)
    patience: int | None = Field(None, ge=1, le=1000)


class NewOptions(Shape):
    """How thorough evaluations are."""

    trials: int = Field(5, ge=1, le=64)
    time_budget_s: float = Field(0.5, gt=0, le=10)
    strict_isolation: bool = False
    compile_baseline: bool = True


class NewPreset(Shape):
    """What the loop does; what is null stays as the preset has it."""

    name: Literal["default", "paper"] = "default"
    base: Literal["best", "last"] | None = None
    metrics: str | None = Field(None, max_length=100, pattern=r"^[a-z0-9_\-]+$")
    show_reference: bool | None = None
    show_numbers: bool | None = None
    history: int | None = Field(None, ge=0, le=1000)
    correction: bool | None = None
    optimization: bool | None = None
    self_refine: bool | None = None


class ModelSettings(Shape):
    """Of networked models. Server, key and prices are the operator's."""

    temperature: float | None = Field(None, ge=0, le=2)
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None


TaskRef = Annotated[str, Field(pattern=TASK_ID, description="Id of a task that was uploaded.")]
ModelName = Annotated[str, Field(min_length=1, max_length=200, examples=["openai:NAME", "recorded:NAME", "manual:"])]


class NewRun(Shape):
    """A run to be made."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "task": {"name": "relu_twice", "source": EXAMPLE_SOURCE},
                    "language": "cpp",
                    "coder": "manual:",
                    "budget": {"rounds": 5},
                }
            ]
        },
    )
    task: TaskRef | NewTask
    language: Language
    coder: ModelName
    judge: ModelName | None = Field(None, description="The Coder's where null.")
    evaluator: str | None = Field(None, max_length=200, description="One of those in /about; the first where null.")
    budget: NewBudget = NewBudget()
    preset: NewPreset = NewPreset()
    options: NewOptions = NewOptions()
    model_settings: ModelSettings = ModelSettings()


class NewKernel(Shape):
    """A kernel's files, as its language wants them."""

    language: Language
    files: dict[str, str] = Field(max_length=3, examples=[{"kernel.cpp": "...", "model.py": "..."}])
    flags: tuple[Annotated[str, Field(max_length=200)], ...] = Field((), max_length=32)


class NewEvaluation(Shape):
    """One kernel to be measured against one task."""

    task: TaskRef | NewTask
    kernel: NewKernel | Annotated[str, Field(pattern=KERNEL_ID, description="Id of a kernel that is known here.")]
    evaluator: str | None = Field(None, max_length=200)
    options: NewOptions = NewOptions()
    metrics: Literal["core", "paper"] | None = Field(None, description="Metric set of a profile; null for no profile.")


class NewReply(Shape):
    """A person's reply to the prompt that a run waits at."""

    text: str = Field(min_length=1)
    key: str | None = Field(
        None, max_length=200, description="Of the prompt that was read: a reply to another is refused."
    )


# -- what is given -------------------------------------------------------------------------------------------------


class TaskOutput(Shape):
    """A task with its source."""

    id: str
    name: str
    source: str
    meta: TaskMeta


class KernelOutput(Shape):
    """A kernel with its files."""

    id: str
    language: Language
    files: dict[str, str]
    flags: tuple[str, ...]


class RunStanding(Shape):
    """Where a run stands after it was asked to change."""

    id: str
    state: RunState


class EvaluationStanding(Shape):
    """Likewise of a single evaluation."""

    id: str
    state: SingleState


class EvaluationOutput(Shape):
    """A single evaluation and what it found."""

    id: str
    state: SingleState
    task: str
    task_name: str
    kernel: str
    evaluator: str
    error: str
    evaluation: Evaluation | None
    profile: Profile | None
    report: str | None
    """Digest of the profile's .ncu-rep, see /artifacts."""
    created: datetime
    updated: datetime


class TaskPage(Shape):
    """Tasks, newest first. `next` is the cursor of the next page; null on the last one."""

    items: tuple[TaskLine, ...]
    next: str | None


class RunPage(Shape):
    """Runs, likewise."""

    items: tuple[RunLine, ...]
    next: str | None


class EvaluationPage(Shape):
    """Single evaluations, likewise."""

    items: tuple[EvaluationLine, ...]
    next: str | None


class EventPage(Shape):
    """Events, oldest first. `last` is the id to ask `after` next."""

    items: tuple[StoredEvent, ...]
    last: int


class PendingPage(Shape):
    """Prompts that wait for a person."""

    items: tuple[PendingItem, ...]


class CallPage(Shape):
    """Model calls of a round."""

    items: tuple[CallOutput, ...]


class DevicePage(Shape):
    """Devices on which anything was measured."""

    items: tuple[DeviceLine, ...]


class MethodLine(Shape):
    """What a Judge proposed in one round, and what came of it."""

    run: str
    task: str
    language: str
    device: str | None
    round: int
    plan: Plan
    verdict: str | None
    predicted_gain: float | None
    measured_gain: float | None
    """Speedup over eager of the round's kernel / that of the kernel which it was to improve."""


class MethodPage(Shape):
    """Methods that were tried, newest run first."""

    items: tuple[MethodLine, ...]
    next: str | None


class LimitsOutput(Shape):
    """What one request, run or client may take at most. Sizes in bytes."""

    body: int
    source: int
    reply: int
    rounds: int
    usd: float | None
    seconds: float | None
    active: int
    """Runs and evaluations under way, of this caller."""
    queue: int
    streams: int


class About(Shape):
    """What this service is and offers to this caller."""

    version: str
    caller: str
    scope: Scope
    models: tuple[str, ...]
    """Patterns of what a run may name, with `*` for anything."""
    recordings: tuple[str, ...]
    evaluators: tuple[str, ...]
    languages: tuple[Language, ...]
    limits: LimitsOutput


class Health(Shape):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(Shape):
    """Whether work is accepted and carried out."""

    ready: bool
    database: bool
    workers: int
    queued: int
    reason: str
    """Why not; empty where ready."""


class WorkerLine(Shape):
    """A live worker process."""

    id: str
    pid: int
    slots: int
    started: datetime
    seen: datetime
    draining: bool


class QueueOutput(Shape):
    """The queue and who works on it."""

    queued: int
    running: int
    waiting: int
    workers: tuple[WorkerLine, ...]
    streams: int
