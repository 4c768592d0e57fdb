"""What people tell the matrix: pins, approvals, refusals, releases, the brake."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INSTANT = sa.String(32)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "instructions",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("service", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("until", _INSTANT),
        sa.Column("ended_at", _INSTANT),
        sa.Column("ended_by", sa.String(128), nullable=False),
        sa.Column("ended_why", sa.Text, nullable=False),
    )
    op.create_index("instructions_by_time", "instructions", ["service", "at"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("instructions")
