"""What the signals showed around incidents and drills."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the table; incidents from before have no history."""
    op.create_table(
        "signal_histories",
        sa.Column("about", sa.String(255), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("traces", sa.JSON, nullable=False),
    )
    op.create_index("signal_histories_by_time", "signal_histories", ["at"])


def downgrade() -> None:
    """Take it away."""
    op.drop_table("signal_histories")
