"""What belongs to an incident, who has it, how bad it was, and who wrote what on its timeline."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def _columns() -> tuple["sa.Column[Any]", ...]:
    return (
        sa.Column("severity", sa.String(16), nullable=False, server_default="none"),
        sa.Column("pool", sa.String(256), nullable=False, server_default=""),
        sa.Column("about", sa.String(256), nullable=False, server_default="serving"),
        sa.Column("began_at", sa.String(32)),
        sa.Column("rows", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("acknowledged_at", sa.String(32)),
        sa.Column("acknowledged_by", sa.String(128), nullable=False, server_default=""),
        sa.Column("assignee", sa.String(128), nullable=False, server_default=""),
        sa.Column("resolved_by", sa.String(128), nullable=False, server_default=""),
        sa.Column("reopened_by", sa.String(128), nullable=False, server_default=""),
    )


def upgrade() -> None:
    """Add columns and the table; incidents from before were begun by a row each, and stay with it."""
    for column in _columns():
        op.add_column("incidents", column)
    op.add_column("timeline", sa.Column("who", sa.String(128), nullable=False, server_default=""))
    op.create_table(
        "incident_members",
        sa.Column("incident_id", sa.String(255), sa.ForeignKey("incidents.id"), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("starts_at", sa.String(32), nullable=False),
        sa.Column("ends_at", sa.String(32)),
        sa.Column("is_row", sa.Boolean, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
    )
    op.create_index("incident_members_by_key", "incident_members", ["key"])
    op.create_index("incidents_by_state", "incidents", ["service", "state", "resolved_at"])
    incidents = sa.table(
        "incidents", sa.column("id"), sa.column("level"), sa.column("state"), sa.column("detected_at"),
        sa.column("resolved_at"), sa.column("severity"), sa.column("rows", sa.JSON),
    )  # fmt: skip
    members = sa.table(
        "incident_members", sa.column("incident_id"), sa.column("key"), sa.column("name"), sa.column("status"),
        sa.column("starts_at"), sa.column("ends_at"),
        sa.column("is_row", sa.Boolean), sa.column("pool"),
    )  # fmt: skip
    over = incidents.c.state == "resolved"
    op.execute(
        members.insert().from_select(
            ["incident_id", "key", "name", "status", "starts_at", "ends_at", "is_row", "pool"],
            sa.select(
                incidents.c.id, sa.literal("row/").concat(incidents.c.level), incidents.c.level,
                sa.case((over, "resolved"), else_="firing"), incidents.c.detected_at, incidents.c.resolved_at,
                sa.true(), sa.literal("primary"),
            ),
        )
    )  # fmt: skip
    for level, severity in (("P0", "critical"), ("P1", "warning"), ("P2", "warning")):
        mine = incidents.c.level == level
        op.execute(incidents.update().where(mine).values(severity=severity, rows=[level]))


def downgrade() -> None:
    """Take them away."""
    op.drop_index("incidents_by_state", "incidents")
    op.drop_table("incident_members")
    op.drop_column("timeline", "who")
    for column in _columns():
        op.drop_column("incidents", column.name)
