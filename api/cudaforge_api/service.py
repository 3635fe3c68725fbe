"""What the routes share: settings, the record, the feed of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from cudaforge_api.events import Feed
from cudaforge_api.settings import Settings

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore


@dataclass(frozen=True)
class Service:
    """One service over one home."""

    settings: Settings
    record: SqliteStore
    feed: Feed


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
