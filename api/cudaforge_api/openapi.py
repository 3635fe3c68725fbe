"""`python -m cudaforge_api.openapi` prints the OpenAPI document; `make openapi` stores it as docs/openapi.json."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from cudaforge_api.app import create_app
from cudaforge_api.settings import Settings


def document() -> str:
    """The document as it is stored: it depends on the code alone."""
    with tempfile.TemporaryDirectory(prefix="cudaforge-openapi-") as home:
        app = create_app(Settings(home=Path(home)))
        try:
            return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"
        finally:
            app.state.service.record.close()


if __name__ == "__main__":
    print(document(), end="")
