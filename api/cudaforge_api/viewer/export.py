"""A run as one file that needs neither a service nor a network: what `cudaforge show RUN --html FILE` writes.

It holds the page of the run and of every round with all their parts, the style sheets and the elements' modules. Its
own policy lets run what has the hash of these modules, and nothing else; untrusted text is escaped as on the pages.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING

from cudaforge_api.viewer import charts, html, reproduce
from cudaforge_api.viewer.rounds import TABS, round_page
from cudaforge_api.viewer.run import run_page

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore
    from cudaforge.trace import Run

STYLES = ("viewer.css", "elements.css")
MODULES = ("vendor/plot.js", "vendor/codemirror.js", "vendor/elements.js")
"""In this order: the libraries register themselves, the elements come last."""
LICENCES = "vendor/LICENSES.txt"


def export_run(record: SqliteStore, run: Run) -> bytes:
    """The file. Raises StoreError."""
    page = run_page(record, run, exported=True)
    rounds = [
        (attempt.round, [(tab, round_page(record, run, attempt, tab)) for tab in TABS])
        for attempt in record.attempts(run.id)
    ]
    commands = {
        number: reproduce.commands(run, kernel) for number, tabs in rounds if (kernel := tabs[0][1].kernel) is not None
    }
    files = html.static_files()
    modules = [_inline(files[name].decode()) for name in MODULES if name in files]
    nonce = secrets.token_urlsafe(16)
    hashes = " ".join(f"'{_hash(module)}'" for module in modules) or "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'nonce-{nonce}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "page": page,
        "rounds": rounds,
        "commands": commands,
        "task_file": reproduce.task_file(run.spec.task),
        "task_source": reproduce.task_source(run.spec.task),
        "scale": charts.scale_of(r.attempt.speedup.eager for r in page.rounds if r.attempt.speedup),
        "exported": True,
        "nonce": nonce,
        "policy": policy,
        "styles": [files[name].decode() for name in STYLES if name in files],
        "modules": modules,
        "licences": files[LICENCES].decode() if LICENCES in files else "",
    }
    return html.render("export.html", values)


def _inline(module: str) -> str:
    """A module as the text of a script element: nothing in it can end the element or begin a comment.

    In JavaScript both are in strings, templates and regular expressions, where the backslash changes nothing.
    """
    return module.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
