"""Coder: writes kernels. Prompts in, a Kernel out."""

from __future__ import annotations

import re
import warnings

from cudaforge.agents.briefing import Briefing, kernel_context
from cudaforge.agents.evidence import failure
from cudaforge.agents.measurements import profile_context
from cudaforge.agents.reply import Block, blocks, normalize
from cudaforge.errors import KernelError, ReplyError
from cudaforge.evaluation import Evaluation
from cudaforge.kernel import Kernel, Language, check_model_py
from cudaforge.trace import Diagnosis, Message, Plan
from cudaforge_profiling.types import Profile

SOURCE_INFOS = {"cuda", "cu", "cuh", "cpp", "c++", "cc", "cxx", "c", "h", "hpp", "cuda-cpp", "cuda-c++", "cuda_cpp"}
PYTHON_INFOS = {"python", "python3", "py", "triton"}
NAME = re.compile(r"(?<![\w.-])(kernel\.cu|kernel\.cpp|model\.py)(?![\w])")
COMMENT = re.compile(r"^\s*(?://|/\*|#|\"\"\")")


def draft(briefing: Briefing) -> tuple[Message, ...]:
    """Asks for the first kernel."""
    return briefing.messages("coder", "draft")


def repair(
    briefing: Briefing, kernel: Kernel, evaluation: Evaluation, diagnosis: Diagnosis | None, hint: str = ""
) -> tuple[Message, ...]:
    """Asks to mend a kernel that failed; without a diagnosis the error speaks for itself. `hint`: a person's words."""
    return briefing.messages(
        "coder",
        "repair",
        **kernel_context(kernel, "Your kernel"),
        evaluation=evaluation,
        failure=failure(evaluation, kernel),
        advice_text=_diagnosis_text(diagnosis) if diagnosis else "",
        hint_text=hint,
    )


def revise(
    briefing: Briefing,
    kernel: Kernel,
    evaluation: Evaluation,
    profile: Profile | None,
    plan: Plan | None,
    hint: str = "",
) -> tuple[Message, ...]:
    """Asks to make a kernel that passed faster, by one plan; without a plan by the evidence. `hint`: a user's words."""
    return briefing.messages(
        "coder",
        "revise",
        **kernel_context(kernel, "Your kernel"),
        timed=evaluation if evaluation.passed else None,
        **profile_context(profile, kernel, evaluation, metrics_only=briefing.paper),
        advice_text=_plan_text(plan) if plan else "",
        hint_text=hint,
    )


def _diagnosis_text(diagnosis: Diagnosis) -> str:
    return (
        f"critical issue: {diagnosis.critical_issue}\n"
        f"why it matters: {diagnosis.why_it_matters}\n"
        f"minimal fix: {diagnosis.minimal_fix_hint}"
    )


def _plan_text(plan: Plan) -> str:
    lines = [f"bottleneck: {plan.bottleneck}"]
    lines += [f"evidence: {fact.metric}: {fact.value}" for fact in plan.evidence]
    lines.append(f"method: {plan.method}")
    lines += [f"step {number}: {step}" for number, step in enumerate(plan.steps, 1)]
    if plan.predicted_gain:
        lines.append(f"predicted gain: {plan.predicted_gain:.3g}x")
    return "\n".join(lines)


def parse_kernel(text: str, language: Language) -> Kernel:
    """Reads a reply's files: fenced blocks, named before the fence, in its info string or in a first comment.

    Blocks without a name are recognised by their language and content. Of several versions of a file the last
    complete one counts; a snippet without ModelNew or exports never replaces a whole file.

    Raises:
        ReplyError: a file is missing, cut off, empty or no Python, or there is no ModelNew.
    """
    text = normalize(text)
    found = blocks(text)
    if not found and language.source_name is None and re.search(r"^class ModelNew\b", text, re.M):
        found = [Block("python", (), text, closed=True)]  # asked for one file, some models answer bare
    files: dict[str, str] = {}
    for name in language.file_names:
        mine = [block for block in found if _file_of(block, language, alone=len(found) == 1) == name]
        complete = [block for block in mine if block.closed and block.text.strip()]
        if not complete:
            raise ReplyError(_missing(name, mine, found), _how_to_answer(language))
        # Whole files before snippets, named before guessed, later before earlier.
        ranked = sorted(complete, key=lambda block: (_is_whole(block, name), _is_whole(block, name) or _named(block)))
        files[name] = ranked[-1].text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash in the model's strings is no warning about us
            check_model_py(files["model.py"])
        return Kernel.of(language, files)
    except KernelError as error:
        raise ReplyError(error.message, _how_to_answer(language)) from None
    except (ValueError, RecursionError, MemoryError) as error:  # what Python's parser raises on odd input
        raise ReplyError(f"model.py cannot be read as Python: {error}.", _how_to_answer(language)) from None


def _file_of(block: Block, language: Language, *, alone: bool) -> str | None:
    """Which of the language's files a block holds; None for everything else."""
    names = language.file_names
    name = _name(block)
    if name is not None:
        return name if name in names else None
    kind = _kind(block)
    if kind == "model.py" or (kind is None and alone and len(names) == 1):
        return "model.py"
    return language.source_name if kind == "source" else None


def _named(block: Block) -> bool:
    return _name(block) is not None


def _name(block: Block) -> str | None:
    """The file name that a block was given, unless its language contradicts it."""
    first = next((line for line in block.text.split("\n") if line.strip()), "")
    # Nearest first; a line that speaks of two files names neither.
    lines = [block.info, first if COMMENT.match(first) else "", *block.before]
    for line in lines:
        mentioned = set(NAME.findall(line))
        if len(mentioned) == 1:
            name: str = mentioned.pop()
            kind = _kind_of_info(block.info)
            if kind is None or (kind == "model.py") == (name == "model.py"):
                return name
    return None


def _kind_of_info(info: str) -> str | None:
    word = re.split(r"[\s:{},=]+", info.strip().strip("{").lstrip(".").lower(), maxsplit=1)[0]
    return "model.py" if word in PYTHON_INFOS else "source" if word in SOURCE_INFOS else None


def _kind(block: Block) -> str | None:
    """`model.py` or `source` by the info string, else by content."""
    by_info = _kind_of_info(block.info)
    if by_info is not None:
        return by_info
    if block.info and not NAME.search(block.info):
        return None  # json, text, bash, diff
    if re.search(r"^class ModelNew\b", block.text, re.M):
        return "model.py"
    return "source" if "TVM_FFI_DLL_EXPORT" in block.text else None


def _is_whole(block: Block, name: str) -> bool:
    if name == "model.py":
        return re.search(r"^class ModelNew\b", block.text, re.M) is not None
    return "TVM_FFI_DLL_EXPORT" in block.text


def _missing(name: str, mine: list[Block], found: list[Block]) -> str:
    if any(not block.closed for block in mine):
        return f"the block of {name} is not closed: the reply was cut off. Answer shorter, but with complete files."
    if mine:
        return f"{name} is empty."
    if not found:
        return f"{name} is missing: the reply has no fenced code block."
    kinds = ", ".join(f"```{block.info[:40]}" for block in found[:6])
    return f"{name} is missing: none of the {len(found)} fenced blocks ({kinds}) is this file."


def _how_to_answer(language: Language) -> str:
    fences = {"kernel.cu": "```cuda", "kernel.cpp": "```cpp", "model.py": "```python"}
    files = " and ".join(f"{name} in a {fences[name]} block" for name in language.file_names)
    return f"Answer with {files}, each complete and with its name on the line before the fence."
