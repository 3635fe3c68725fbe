"""The service: tokens, its queue, tasks and single evaluations. What each column means stands in store/models.py."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def optional(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=True)


def whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def body() -> sa.Column[str]:
    return sa.Column("body", sa.Text(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "tasks",
        text("id"),
        text("name"),
        text("submitter"),
        text("created"),
        body(),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_tasks_created", "tasks", ["created", "id"])

    op.create_table(
        "tokens",
        text("id"),
        text("name"),
        text("sha256"),
        text("scope"),
        sa.Column("max_active", sa.Integer(), nullable=True),
        text("created"),
        optional("last_used"),
        optional("revoked"),
        sa.PrimaryKeyConstraint("id"),
    )

    op.create_table(
        "jobs",
        whole("seq"),
        text("id"),
        text("kind"),
        text("submitter"),
        text("state"),
        optional("worker"),
        whole("deliveries"),
        flag("cancel"),
        text("served"),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_id", "jobs", ["id"], unique=True)
    op.create_index("ix_jobs_state", "jobs", ["state", "submitter", "seq"])
    op.create_index("ix_jobs_submitter", "jobs", ["submitter", "served"])

    op.create_table(
        "evaluations",
        text("id"),
        text("state"),
        text("task"),
        text("task_name"),
        text("kernel"),
        optional("verdict"),
        text("created"),
        text("updated"),
        body(),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_evaluations_created", "evaluations", ["created", "id"])

    op.create_table(
        "workers",
        text("id"),
        whole("pid"),
        whole("slots"),
        text("started"),
        text("seen"),
        flag("draining"),
        sa.PrimaryKeyConstraint("id"),
    )

    op.create_table(
        "answers",
        text("submitter"),
        text("key"),
        text("fingerprint"),
        whole("status"),
        text("location"),
        body(),
        text("created"),
        sa.PrimaryKeyConstraint("submitter", "key"),
    )
    op.create_index("ix_answers_created", "answers", ["created"])
