"""How the vocabulary shows itself: rich in a notebook, one line elsewhere.

Nothing is drawn here: `cudaforge.notebook` is imported when a notebook asks, so an evaluator host, which has no
Jinja2, can use every object. IPython falls back to `repr` where `_repr_html_` gives None.
"""

from __future__ import annotations

from cudaforge_profiling.types import Profile


class Displayed:
    """Mixin of the objects that a user meets."""

    def _repr_html_(self) -> str | None:
        return html_of(self)

    def __repr__(self) -> str:
        from cudaforge.notebook.plain import plain

        return plain(self)

    def __str__(self) -> str:
        return repr(self)


def html_of(thing: object) -> str | None:
    """HTML for a notebook; None where Jinja2, which draws it, is not installed."""
    try:
        from cudaforge.notebook.display import html
    except ModuleNotFoundError as missing:
        if missing.name != "jinja2":
            raise
        return None
    return html(thing)


# cudaforge_profiling must not know of cudaforge, so a Profile is told from here how it is drawn. Whoever has a profile
# from us has imported the vocabulary, and with it this.
Profile.display = html_of
