"""Drills on production: what happens in one as it happens, slots, halts, and what users got."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_INSTANT = sa.String(32)


def upgrade() -> None:
    """Make the tables; drills that a crash left running are called off first: only one may be."""
    op.execute(
        "UPDATE drills SET outcome = 'aborted', reasons = '[\"the control plane was upgraded while the drill ran\"]' "
        "WHERE outcome = 'running'"
    )
    op.add_column("drills", sa.Column("users", sa.JSON, nullable=False, server_default="{}"))
    running = sa.text("outcome = 'running'")
    op.create_index(
        "one_drill_at_a_time", "drills", ["outcome"], unique=True, sqlite_where=running, postgresql_where=running
    )
    op.create_table(
        "drill_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("drill_id", sa.String(255), sa.ForeignKey("drills.id"), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("ix_drill_events_drill_id", "drill_events", ["drill_id"])
    op.create_table(
        "drill_slots",
        sa.Column("experiment", sa.String(128), primary_key=True),
        sa.Column("slot", sa.String(128), primary_key=True),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
    )
    op.create_table(
        "halts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("by", sa.String(128), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("resumed_by", sa.String(128)),
        sa.Column("resumed_at", _INSTANT),
    )


def downgrade() -> None:
    """Drop them again."""
    for table in ("halts", "drill_slots", "drill_events"):
        op.drop_table(table)
    op.drop_index("one_drill_at_a_time", "drills")
    op.drop_column("drills", "users")
