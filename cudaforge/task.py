"""Task: a reference module, its workloads, the tolerance and what is allowed.

A task is a KernelBench-style file as it is: `Model`, `get_inputs`, `get_init_inputs`. Optional metadata stands
inside it as a literal `CUDAFORGE = {...}` or beside it as `NAME.toml`, with the fields of TaskMeta. The file is
read, never executed, here: only confined processes run it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cudaforge.displayed import Displayed
from cudaforge.errors import TaskError

MAX_TASK_BYTES = 1 << 20
REQUIRED = {
    "Model": "class Model(nn.Module), the reference",
    "get_inputs": "def get_inputs(), the list of forward's arguments",
    "get_init_inputs": "def get_init_inputs(), the list of the constructor's arguments",
}


class Tolerance(BaseModel):
    """How far an output may be off.

    `calibrated`: error against a float64 reference, up to `multiple` times the error that PyTorch makes in
    the task's own dtype, with a floor. `explicit`: |out - ref64| <= atol + rtol * |ref64|. `kernelbench`:
    allclose against eager at 1e-4 (fp32) or 1e-2 (half), to compare with published numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    mode: Literal["calibrated", "explicit", "kernelbench"] = "calibrated"
    multiple: float = Field(8.0, gt=0, le=100)
    atol: float = Field(0.0, ge=0)
    rtol: float = Field(0.0, ge=0)


class Workload(BaseModel):
    """One set of shapes, dtypes and init arguments: the task's module globals, overridden by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str = "default"
    overrides: dict[str, int | float | bool | str | list[int]] = {}


class TaskMeta(BaseModel):
    """What may stand beside or inside the task file; everything has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = None
    """Model and floating inputs are cast to it; None leaves them as the file makes them."""
    tolerance: Tolerance = Tolerance()
    workloads: tuple[Workload, ...] = (Workload(),)
    allow_tf32: bool = False
    """Applies to reference, baseline and kernel alike."""
    allow_libraries: bool = False
    """cuBLAS, cuDNN or PyTorch operators may do a part of the work."""
    input_range: tuple[float, float] | None = None
    """Values that floating inputs may take, where that is more than what the task's own inputs show."""
    notes: str = ""
    """Shown to the Coder, e.g. what the values mean or which shapes matter."""

    @field_validator("workloads")
    @classmethod
    def _names_differ(cls, workloads: tuple[Workload, ...]) -> tuple[Workload, ...]:
        if not workloads or len({w.name for w in workloads}) != len(workloads):
            raise ValueError("workloads need at least one entry, each with a name of its own")
        return workloads


class Task(Displayed, BaseModel):
    """A reference module and what is asked of its replacement. Frozen; the id is the hash of source and metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    source: str
    meta: TaskMeta = TaskMeta()

    @property
    def id(self) -> str:
        """`t` and 16 hex digits of the SHA-256 of source and metadata (the name does not count)."""
        canonical = json.dumps([self.source, self.meta.model_dump(mode="json")], sort_keys=True)
        return "t" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @classmethod
    def load(cls, path: Path | str) -> Task:
        """Reads a task file and the metadata beside it. Raises TaskError with file and line."""
        path = Path(path)
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise TaskError("is not UTF-8 text.", file=str(path)) from None
        except OSError as error:
            raise TaskError(
                f"cannot be read: {error.strerror}.", "TASK is a KernelBench-style .py file.", file=str(path)
            ) from None
        beside = path.with_suffix(".toml")
        meta: dict[str, Any] | None = None
        if beside.is_file():
            try:
                meta = tomllib.loads(beside.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise TaskError(f"is not TOML: {error}.", file=str(beside)) from None
        return cls.parse(source, name=path.stem, file=str(path), beside=meta)

    @classmethod
    def parse(
        cls, source: str, *, name: str = "task", file: str = "task.py", beside: dict[str, Any] | None = None
    ) -> Task:
        """Makes a task of source text; `beside` is metadata from a file next to it. Raises TaskError."""
        if len(source.encode("utf-8", "surrogatepass")) > MAX_TASK_BYTES:
            raise TaskError(f"is larger than {MAX_TASK_BYTES} bytes.", file=file)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0) or 0
            raise TaskError(f"is not Python: {getattr(error, 'msg', error)}.", file=file, line=line) from None
        except (RecursionError, MemoryError):  # Python's parser gives up on deep nesting so
            raise TaskError("is nested too deeply to be read.", file=file) from None
        defined = _definitions(tree)
        missing = [what for symbol, what in REQUIRED.items() if symbol not in defined]
        if missing:
            raise TaskError(
                "is not a task, it lacks: " + "; ".join(missing) + ".",
                "A task is a KernelBench-style file: Model, get_inputs and get_init_inputs at module level.",
                file=file,
                line=max(len(source.splitlines()), 1),
            )
        node = defined["Model"]
        if not isinstance(node, ast.ClassDef):
            raise TaskError("Model is not a class.", file=file, line=node.lineno)
        if not any(isinstance(n, ast.FunctionDef) and n.name == "forward" for n in node.body) and not node.bases:
            raise TaskError("Model has no forward.", file=file, line=node.lineno)
        for symbol in ("get_inputs", "get_init_inputs"):
            function = defined[symbol]
            if isinstance(function, ast.FunctionDef) and _needs_arguments(function):
                raise TaskError(f"{symbol} must take no arguments.", file=file, line=function.lineno)
        inside, line = _inside(tree, file)
        if inside and beside:
            raise TaskError(
                "has metadata both inside and beside it.",
                "Keep CUDAFORGE = {...} or the .toml.",
                file=file,
                line=line,
            )
        meta = _meta(inside or beside or {}, file, line)
        for workload in meta.workloads:
            for override in workload.overrides:
                if override not in defined:
                    raise TaskError(
                        f"workload {workload.name!r} overrides {override}, which the file does not define.",
                        "Overrides replace module-level names such as batch_size.",
                        file=file,
                        line=line,
                    )
        task = cls(name=name, source=source, meta=meta)
        try:
            _ = task.id
        except ValueError:  # Python refuses to write integers of thousands of digits
            raise TaskError("metadata holds a number that is too long.", file=file, line=line) from None
        return task


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Module-level names and the statements that define them."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        found[name.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found[(alias.asname or alias.name).split(".")[0]] = node
    return found


def _needs_arguments(function: ast.FunctionDef) -> bool:
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def _inside(tree: ast.Module, file: str) -> tuple[dict[str, Any], int]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CUDAFORGE" for t in node.targets):
            try:
                value = ast.literal_eval(node.value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                value = None
            if not isinstance(value, dict):
                raise TaskError("CUDAFORGE must be a literal dict.", file=file, line=node.lineno)
            return value, node.lineno
    return {}, 0


def _meta(raw: dict[str, Any], file: str, line: int) -> TaskMeta:
    try:
        return TaskMeta.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TaskError(
            f"metadata {where}: {first['msg']}.",
            "Fields: " + ", ".join(TaskMeta.model_fields) + ".",
            file=file,
            line=line,
        ) from None
