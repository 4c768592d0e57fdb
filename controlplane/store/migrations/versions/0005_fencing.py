"""Episodes, steps and fencing tokens of receipts; who may act."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add them; a receipt from before has episode 0, so that the next one of its row is the first."""
    op.add_column("receipts", sa.Column("episode", sa.Integer, nullable=False, server_default="0"))
    op.add_column("receipts", sa.Column("steps", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("receipts", sa.Column("token", sa.Integer, nullable=False, server_default="0"))
    op.create_index("receipts_by_episode", "receipts", ["service", "level", "episode"])
    op.create_table(
        "leadership",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("leadership")
    op.drop_index("receipts_by_episode", "receipts")
    with op.batch_alter_table("receipts") as table:
        for column in ("episode", "steps", "token"):
            table.drop_column(column)
