"""Where HTML leaves the service: templates, static files under the hash of their content, and the policy of a page."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi.responses import Response

from cudaforge import __version__, words
from cudaforge_api.viewer import charts, words_html
from cudaforge_api.viewer.islands import island

HERE = Path(__file__).parent
STATIC = HERE / "static"
MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Scripts and styles come from files alone: CodeMirror has a shadow root, and Plot's style element is taken out."""


@functools.cache
def static_files() -> dict[str, bytes]:
    """Every file that a page may ask for, by its path below static/."""
    found = sorted(path for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES and path.is_file())
    return {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in found}


@functools.cache
def static_digest() -> str:
    """Of all static files together. It stands in their URLs, as a folder, so that modules find one another beside
    themselves and a browser may keep them for ever."""
    digest = hashlib.sha256()
    for name, data in static_files().items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def asset(name: str) -> str:
    """URL of a static file."""
    return f"/static/{static_digest()}/{name}"


@functools.cache
def environment() -> jinja2.Environment:
    """The templates. Escaping is on for every one of them, and a name that is missing is a mistake of ours."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(version=__version__, asset=asset, island=island, charts=charts, exported=False)
    for name in ("microseconds", "times", "interval", "dollars", "count", "size", "one_line", "clean", "short_model"):
        made.filters[name] = getattr(words, name)
    made.filters.update(words_html.FILTERS)
    return made


def query(**values: str) -> str:
    """A query string, without what is empty."""
    return urlencode({name: value for name, value in values.items() if value})


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """A template as UTF-8. Lone surrogates, which sources and replies may contain, become `?`."""
    return environment().get_template(template).render(**values).encode("utf-8", "replace")


def page(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    """A page of the viewer."""
    more = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-store",  # pages change, and belong to whom the service knows
        **(headers or {}),
    }
    return Response(render(template, values), status, more, "text/html; charset=utf-8")
