"""Create the table of tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create `tasks`."""
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("completed", sa.Boolean(), server_default=sa.false()),
    )


def downgrade() -> None:
    """Drop `tasks`."""
    op.drop_table("tasks")
