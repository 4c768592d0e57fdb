"""A lease says how its fault is to be: direction, duty, amounts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the parameters; the leases there are were of faults that had none."""
    op.add_column("leases", sa.Column("parameters", sa.JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Take them off again."""
    op.drop_column("leases", "parameters")
