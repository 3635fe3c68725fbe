"""Bearer tokens: `cf_ID_SECRET`. The secret is shown once, when the token is made; only its hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.sqlite import insert

from cudaforge.errors import UsageError
from cudaforge.jobs import Scope, Token
from cudaforge.store.codec import moment, stamp
from cudaforge.store.database import Database
from cudaforge.store.models import TOKENS
from cudaforge.trace import now

USED_WITHIN = timedelta(minutes=1)
"""How stale `last_used` may be: not every request has to write."""
_FORM = re.compile(r"cf_(c[0-9a-z]{10})_([A-Za-z0-9_-]{43})")
_ALPHABET = string.digits + string.ascii_lowercase


class Tokens:
    """The tokens of one home. Threads may share it. Raises StoreError in every method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, scope: Scope, max_active: int | None = None) -> tuple[Token, str]:
        """A new token and its secret text, which cannot be had again. Raises UsageError for a name in use or empty."""
        name = name.strip()
        if not name or len(name) > 100 or not name.isprintable():
            raise UsageError("A token needs a name of 1 to 100 printable characters.", "Name it after who will use it.")
        token = Token(
            id="c" + "".join(secrets.choice(_ALPHABET) for _ in range(10)),
            name=name,
            scope=scope,
            max_active=max_active,
        )
        secret = f"cf_{token.id}_{secrets.token_urlsafe(32)}"
        values = {
            **token.model_dump(exclude={"created", "last_used", "revoked"}),
            "sha256": _hash(secret),
            "created": stamp(token.created),
        }
        with self._database.write() as connection:
            in_use = select(TOKENS.c.id).where(TOKENS.c.name == name, TOKENS.c.revoked.is_(None))
            if connection.execute(in_use).first() is not None:
                raise UsageError(
                    f"There is a token named {name!r} already.", "Revoke it first, or choose another name."
                )
            connection.execute(insert(TOKENS).values(values))
        return token, secret

    def find(self, secret: str) -> Token | None:
        """The token with this secret; None where there is none or it was revoked."""
        form = _FORM.fullmatch(secret)
        if form is None:
            return None
        with self._database.read() as connection:
            query = select(TOKENS).where(TOKENS.c.id == form.group(1), TOKENS.c.revoked.is_(None))
            row = connection.execute(query).mappings().one_or_none()
        if row is None or not hmac.compare_digest(row["sha256"], _hash(secret)):
            return None
        token = _token(row)
        if token.last_used is None or token.last_used < now() - USED_WITHIN:
            with self._database.write() as connection:
                used = {"last_used": stamp(now())}
                connection.execute(update(TOKENS).where(TOKENS.c.id == token.id).values(used))
        return token

    def list(self) -> list[Token]:
        """All, revoked ones too, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(TOKENS).order_by(TOKENS.c.created)).mappings().all()
        return [_token(row) for row in rows]

    def revoke(self, reference: str) -> Token:
        """Ends a token, given by id or name; from the next request on it counts for nothing. Raises UsageError."""
        with self._database.write() as connection:
            named = (TOKENS.c.id == reference) | (TOKENS.c.name == reference)
            found = connection.execute(select(TOKENS).where(named, TOKENS.c.revoked.is_(None))).mappings().all()
            if not found:
                raise UsageError(f"There is no token {reference!r} in use.", "`cudaforge token list` shows them.")
            token = _token(found[0]).model_copy(update={"revoked": now()})
            ended = {"revoked": stamp(token.revoked or now())}
            connection.execute(update(TOKENS).where(TOKENS.c.id == token.id).values(ended))
        return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Any) -> Token:
    values = {name: row[name] for name in Token.model_fields}
    for name in ("created", "last_used", "revoked"):
        values[name] = moment(values[name]) if values[name] else None
    return Token.model_validate(values)
