"""What the agents are told: Jinja templates and worked examples.

`render("draft", **context)` gives a prompt; `example("cuda", "cuda")` the files of a worked example. A name that
a template uses and the context lacks is an error, never an empty space. Texts that a task, a compiler or a
kernel wrote enter a prompt through the filters of `text.py` alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cudaforge_prompts import text
from cudaforge_prompts.text import clip, fence, inline, numbered

HERE = Path(__file__).resolve().parent

__all__ = ["clip", "example", "fence", "inline", "numbered", "render"]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are plain text; what comes from outside is fenced instead
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(text.FILTERS)
    return environment


def render(template: str, **context: object) -> str:
    """Renders `templates/TEMPLATE.j2`, without blank space at its ends.

    Raises:
        jinja2.TemplateNotFound: there is no such template.
        jinja2.UndefinedError: the template uses a name or an attribute that the context does not have.
    """
    return _environment().get_template(f"{template}.j2").render(**context).strip()


@cache
def _files(folder: str) -> tuple[tuple[str, str], ...]:
    order = ("kernel.cu", "kernel.cpp", "model.py")
    paths = [HERE / "examples" / folder / name for name in order]
    return tuple((path.name, path.read_text(encoding="utf-8")) for path in paths if path.is_file())


def example(language: str, device_kind: str = "cuda") -> dict[str, str]:
    """The worked example of a language: file name -> text, with `reference.py`, the module it replaces, first.

    `language` is cuda, cpp, triton or module; a `module` for a CPU has an example of its own. Raises KeyError
    for other languages.
    """
    folder = "module_cpp" if (language, device_kind) == ("module", "cpu") else language
    files = _files(folder) if folder in {"cuda", "cpp", "triton", "module", "module_cpp"} else ()
    if not files:
        raise KeyError(f"no worked example for {language!r}")
    reference = (HERE / "examples" / "reference.py").read_text(encoding="utf-8")
    return {"reference.py": reference, **dict(files)}
