"""The first tables. What each column means stands in store/models.py."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def optional(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=True)


def number(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=True)


def body() -> sa.Column[str]:
    return sa.Column("body", sa.Text(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "runs",
        text("id"),
        text("state"),
        text("created"),
        text("updated"),
        text("task"),
        text("task_name"),
        text("language"),
        text("coder"),
        text("judge"),
        text("evaluator"),
        text("preset"),
        optional("device"),
        text("waiting_for"),
        text("error"),
        sa.Column("win", sa.Boolean(), nullable=True),
        optional("best"),
        optional("kernel"),
        number("speedup"),
        number("speedup_low"),
        number("speedup_high"),
        number("speedup_compile"),
        body(),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_runs_created", "runs", ["created", "id"])
    op.create_index("ix_runs_state", "runs", ["state", "created", "id"])
    op.create_index("ix_runs_task_name", "runs", ["task_name", "created", "id"])
    op.create_index("ix_runs_task", "runs", ["task", "created", "id"])

    op.create_table(
        "attempts",
        text("id"),
        text("run_id"),
        sa.Column("round", sa.Integer(), nullable=False),
        text("action"),
        optional("verdict"),
        number("speedup"),
        number("time_us"),
        optional("kernel"),
        text("started"),
        optional("finished"),
        body(),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_attempts_run_id", "attempts", ["run_id", "round", "id"])
    op.create_index("ix_attempts_kernel", "attempts", ["kernel"])

    op.create_table(
        "kernels",
        text("id"),
        text("language"),
        text("created"),
        body(),
        sa.PrimaryKeyConstraint("id"),
    )

    op.create_table(
        "calls",
        sa.Column("seq", sa.Integer(), nullable=False),
        text("key"),
        text("run_id"),
        text("attempt_id"),
        text("role"),
        text("purpose"),
        sa.Column("position", sa.Integer(), nullable=False),
        text("model"),
        text("state"),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        number("usd"),
        sa.Column("latency_s", sa.Float(), nullable=False),
        text("started"),
        body(),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_calls_key", "calls", ["key"], unique=True)
    op.create_index("ix_calls_run_id", "calls", ["run_id", "started", "seq"])
    op.create_index("ix_calls_state", "calls", ["state", "started", "seq"])

    op.create_table(
        "results",
        text("key"),
        text("run_id"),
        text("kind"),
        optional("task"),
        optional("kernel"),
        text("device"),
        optional("verdict"),
        number("time_us"),
        number("speedup"),
        optional("report"),
        text("created"),
        body(),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_results_run_id", "results", ["run_id", "created"])
    op.create_index("ix_results_kernel", "results", ["kernel"])

    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        text("at"),
        text("run_id"),
        text("type"),
        optional("stage"),
        number("seconds"),
        body(),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_run_id", "events", ["run_id", "id"])

    op.create_table(
        "artifacts",
        text("digest"),
        text("kind"),
        sa.Column("size", sa.Integer(), nullable=False),
        text("created"),
        optional("collected"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_artifacts_kind", "artifacts", ["kind", "created"])
