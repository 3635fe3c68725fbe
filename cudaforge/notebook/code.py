"""Sources as HTML: highlighted where Pygments is installed, plain and escaped elsewhere; diffs by line.

Whatever goes in is untrusted, and long text is cut with a word on how much is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from cudaforge import words
from cudaforge.describe import diff
from cudaforge.kernel import Kernel

MOST_LINES = 400
MOST_COLUMNS = 300
LEXERS = {"cu": "CudaLexer", "cpp": "CppLexer", "py": "PythonLexer"}
# What a token's type begins with -> its class in style.css, the more particular first.
CLASSES = (
    ("Comment.Preproc", "m"),
    ("Comment", "c"),
    ("Keyword.Type", "t"),
    ("Keyword", "k"),
    ("Literal.String", "s"),
    ("Literal.Number", "n"),
    ("Name.Function", "f"),
    ("Name.Class", "f"),
    ("Name.Builtin", "t"),
    ("Name.Decorator", "m"),
    ("Operator.Word", "k"),
)


def cut(text: str, most: int = MOST_LINES) -> tuple[str, str]:
    """The text without control characters, at most so many lines; and a note on what is left out, or empty."""
    listed = words.clean(text).split("\n")  # not splitlines: a form feed must not move the compiler's line numbers
    while listed and not listed[-1].strip():
        listed.pop()
    wide = sum(len(line) > MOST_COLUMNS for line in listed[:most])
    kept = [line if len(line) <= MOST_COLUMNS else line[: MOST_COLUMNS - 1] + "…" for line in listed[:most]]
    notes = [f"{len(listed) - most} of {len(listed)} lines are left out"] if len(listed) > most else []
    notes += [f"{wide} long line{'s are' if wide != 1 else ' is'} cut"] if wide else []
    return "\n".join(kept), "; ".join(notes)


def code(text: str, name: str, marks: Mapping[int, str] | None = None, most: int = MOST_LINES) -> Markup:
    """A numbered listing; `name` decides the language, `marks` gives lines (from 1) a class of their own."""
    shown, note = cut(text, most)
    rows = []
    for number, line in enumerate(_lines(shown, name.rpartition(".")[2]), 1):
        kind = (marks or {}).get(number, "")
        rows.append(
            Markup('<span class="{}"><span class="no">{:>4}</span> {}</span>').format(f"l {kind}".strip(), number, line)
        )
    return _pre(rows, note)


def changes(base: Kernel, kernel: Kernel, most: int = MOST_LINES) -> Markup:
    """The unified diff from `base` to `kernel`; says so where nothing differs."""
    text = diff(base, kernel)
    if not text:
        return Markup('<p class="muted">The same sources{}.</p>').format(
            "" if base.flags == kernel.flags else ", built with other flags"
        )
    shown, note = cut(text, most)
    kinds = {"+": "a", "-": "d", "@": "h"}
    rows = []
    for line in shown.split("\n"):
        kind = "h" if line.startswith(("--- ", "+++ ")) else kinds.get(line[:1], "")
        rows.append(Markup('<span class="{}">{}</span>').format(f"l {kind}".strip(), line or " "))
    return _pre(rows, note)


def _pre(rows: Sequence[Markup], note: str) -> Markup:
    said = Markup('<p class="muted">… {}</p>').format(note) if note else Markup()
    return Markup("<pre>{}</pre>{}").format(Markup("\n").join(rows), said)


def _lines(text: str, suffix: str) -> list[Markup]:
    """Each line with its tokens marked."""
    lines: list[list[Markup]] = [[]]
    for kind, value in _tokens(text, suffix):
        for number, part in enumerate(value.split("\n")):
            if number:
                lines.append([])
            if part:
                lines[-1].append(Markup('<span class="{}">{}</span>').format(kind, part) if kind else escape(part))
    made = [Markup().join(parts) for parts in lines]
    return made[: text.count("\n") + 1]


def _tokens(text: str, suffix: str) -> Iterable[tuple[str, str]]:
    try:
        from pygments import lexers
    except ImportError:
        return [("", text)]
    lexer: Any = getattr(lexers, LEXERS.get(suffix, "TextLexer"))(stripnl=False, ensurenl=False)
    return ((_class(str(kind).removeprefix("Token.")), value) for kind, value in lexer.get_tokens(text))


def _class(kind: str) -> str:
    return next((name for start, name in CLASSES if kind.startswith(start)), "")
