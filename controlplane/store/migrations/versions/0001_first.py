"""The first schema: receipts, incidents and their timelines, drills, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_INSTANT = sa.String(32)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "receipts",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("service", sa.String(128), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("because", sa.JSON, nullable=False),
        sa.Column("detected_at", _INSTANT, nullable=False),
        sa.Column("decided_at", _INSTANT, nullable=False),
        *(
            sa.Column(f"{state}_at", _INSTANT)
            for state in ("intended", "applied", "verified", "reverting", "reverted", "failed")
        ),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("receipts_by_time", "receipts", ["service", "decided_at"])
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("service", sa.String(128), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("drill_id", sa.String(255), nullable=False),
        sa.Column("detected_at", _INSTANT, nullable=False),
        sa.Column("mitigated_at", _INSTANT),
        sa.Column("resolved_at", _INSTANT),
    )
    op.create_index("incidents_by_time", "incidents", ["service", "detected_at"])
    op.create_table(
        "timeline",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("incident_id", sa.String(255), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("ix_timeline_incident_id", "timeline", ["incident_id"])
    op.create_table(
        "drills",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("experiment", sa.String(128), nullable=False),
        sa.Column("row", sa.String(8), nullable=False),
        sa.Column("objective_s", sa.Integer, nullable=False),
        sa.Column("requested_by", sa.String(128), nullable=False),
        sa.Column("slot", sa.String(128)),
        sa.Column("started_at", _INSTANT, nullable=False),
        sa.Column("ended_at", _INSTANT),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("phases", sa.JSON, nullable=False),
        sa.Column("journal", sa.Text, nullable=False),
        sa.UniqueConstraint("experiment", "slot", name="one_run_a_slot"),
    )
    op.create_index("drills_by_time", "drills", ["started_at"])
    op.create_table(
        "leases",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("drill_id", sa.String(255), sa.ForeignKey("drills.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("endpoint", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("deadline", _INSTANT, nullable=False),
        sa.Column("intended_at", _INSTANT, nullable=False),
        sa.Column("injected_at", _INSTANT),
        sa.Column("proven_at", _INSTANT),
        sa.Column("healed_at", _INSTANT),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("ix_leases_drill_id", "leases", ["drill_id"])


def downgrade() -> None:
    """Drop the tables, those that refer to others first."""
    for table in ("leases", "drills", "timeline", "incidents", "receipts"):
        op.drop_table(table)
