"""Kernel: frozen sources, a language and build flags. Its id is their hash.

| language | files                     | what runs                                                     |
|----------|---------------------------|---------------------------------------------------------------|
| cuda     | kernel.cu + model.py      | launchers exported through tvm-ffi, built by nvcc             |
| cpp      | kernel.cpp + model.py     | the same for the CPU, built by g++                            |
| triton   | model.py                  | as it is                                                      |
| module   | model.py                  | any KernelBench-style file with `ModelNew` (load_inline etc.) |
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from cudaforge.displayed import Displayed
from cudaforge.errors import KernelError

MAX_SOURCE_BYTES = 1 << 20
PLAIN_FLAG = re.compile(r"-[\w=.,:+/@%\[\]-]*", re.ASCII)
"""Nothing that a shell, which compilers call, would take for more than a word."""


class Language(StrEnum):
    """How a kernel is written; decides its files and its compiler."""

    CUDA = "cuda"
    CPP = "cpp"
    TRITON = "triton"
    MODULE = "module"

    @property
    def source_name(self) -> str | None:
        """The file that a compiler reads: kernel.cu, kernel.cpp, or None for Python-only formats."""
        return {"cuda": "kernel.cu", "cpp": "kernel.cpp"}.get(self.value)

    @property
    def file_names(self) -> tuple[str, ...]:
        """All files, in the order in which they are shown."""
        return (self.source_name, "model.py") if self.source_name else ("model.py",)


class Kernel(Displayed, BaseModel):
    """Frozen sources + language + extra build flags. Two kernels with the same id are the same kernel.

    Raises KernelError (through `Kernel.of`) where files are missing, unknown, empty or too large. Whether they make
    sense is for the evaluation to say: a model.py that does not parse is a kernel that does not build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Language
    files: dict[str, str]
    flags: tuple[str, ...] = ()
    """Optimisation flags only, e.g. `-O3`, `-use_fast_math`, `-maxrregcount=64`; includes and outputs are ours."""

    @field_validator("flags")
    @classmethod
    def _flags_are_plain(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        for flag in flags:
            if not PLAIN_FLAG.fullmatch(flag) or flag[:2] in ("-o", "-I", "-L", "-B"):
                raise ValueError(f"build flag {flag!r} is not allowed")
        return flags

    @model_validator(mode="after")
    def _files_fit_language(self) -> Kernel:
        expected = set(self.language.file_names)
        if set(self.files) != expected:
            raise ValueError(
                f"a {self.language.value} kernel has the files {sorted(expected)}, not {sorted(self.files)}"
            )
        for name, text in self.files.items():
            if not text.strip():
                raise ValueError(f"{name} is empty")
            if len(text.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
                raise ValueError(f"{name} is larger than {MAX_SOURCE_BYTES} bytes")
        return self

    @classmethod
    def of(cls, language: Language | str, files: dict[str, str], flags: tuple[str, ...] = ()) -> Kernel:
        """Builds a kernel, with KernelError in place of pydantic's report."""
        try:
            return cls(language=Language(language), files=files, flags=flags)
        except ValueError as error:
            first = str(error).split("Value error, ")[-1].split(" [type=")[0]
            raise KernelError(first, "See `cudaforge evaluate --help` for the kernel formats.") from None

    @property
    def id(self) -> str:
        """`k` and 16 hex digits of the SHA-256 of language, files and flags."""
        canonical = json.dumps([self.language.value, self.files, list(self.flags)], sort_keys=True)
        return "k" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def source(self) -> str:
        """The file that matters most to a reader: kernel.cu, kernel.cpp or model.py."""
        return self.files[self.language.source_name or "model.py"]

    @classmethod
    def load(cls, path: Path, language: Language | None = None, flags: tuple[str, ...] = ()) -> Kernel:
        """Reads a kernel from a folder of sources or from one .py file.

        A folder that `write_package` wrote remembers its language and flags in kernel.json. Otherwise the
        language is guessed from the files: kernel.cu, kernel.cpp, else model.py that imports triton or not.
        """
        path = Path(path)
        if path.is_file():
            if path.suffix != ".py":
                raise KernelError(f"{path} is neither a folder of sources nor a .py file.", "Pass the folder.")
            files = {"model.py": _read(path)}
        elif path.is_dir():
            files = {n: _read(path / n) for n in ("kernel.cu", "kernel.cpp", "model.py") if (path / n).is_file()}
            meta = path / "kernel.json"
            if language is None and meta.is_file():
                try:
                    stored = json.loads(_read(meta))
                    language, flags = Language(stored["language"]), tuple(stored["flags"])
                except (ValueError, KeyError, TypeError):
                    raise KernelError(f"{meta} is damaged.", "Delete it, or pass --format.") from None
            if not files:
                raise KernelError(f"{path} holds no kernel.cu, kernel.cpp or model.py.")
        else:
            raise KernelError(f"{path} does not exist.", "KERNEL is a folder of sources or one .py file.")
        language = language or _guess(files)
        return cls.of(language, {n: t for n, t in files.items() if n in language.file_names}, flags)

    def write_package(self, folder: Path) -> Path:
        """Writes the kernel as an importable package that needs torch and tvm-ffi alone; returns `folder`.

        The package is what the engine loads and what the user imports: the sources, `__init__.py` that
        exports ModelNew, and for cuda and cpp `kernel.py`, a copy of `kernel_loader.py`, which builds
        the library beside itself on first import where it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        (folder / "__init__.py").write_text("from .model import ModelNew as ModelNew\n")
        (folder / "kernel.json").write_text(
            json.dumps({"id": self.id, "language": self.language.value, "flags": list(self.flags)}) + "\n"
        )
        if self.language.source_name:
            loader = Path(__file__).with_name("kernel_loader.py").read_text(encoding="utf-8")
            (folder / "kernel.py").write_text(loader, encoding="utf-8")
        return folder


def check_model_py(text: str) -> None:
    """Raises KernelError where `text` is not Python or defines no `class ModelNew`. Runs nothing."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise KernelError(f"model.py:{error.lineno}: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError):  # NUL bytes; deep nesting
        raise KernelError("model.py cannot be read by Python's parser.") from None
    if not any(isinstance(node, ast.ClassDef) and node.name == "ModelNew" for node in ast.walk(tree)):
        raise KernelError("model.py defines no class ModelNew.")


def _guess(files: dict[str, str]) -> Language:
    if "kernel.cu" in files:
        return Language.CUDA
    if "kernel.cpp" in files:
        return Language.CPP
    text = files.get("model.py", "")
    return Language.TRITON if "import triton" in text and "load_inline" not in text else Language.MODULE


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise KernelError(f"{path} is not UTF-8 text.") from None
    except OSError as error:
        raise KernelError(f"{path} cannot be read: {error.strerror}.") from None
