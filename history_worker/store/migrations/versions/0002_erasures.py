"""Remembers which viewers were erased and when, and the ids of their events, so that no erased view comes back.

The workers read `erasures`, and read and add to `erased_events`. An erase writes both, and deletes from `view_events`
and `playbacks`. The history API needs neither. Update all workers before the first erase: a worker from before this
migration does not check for tombstones.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create two tables. Existing rows do not change."""
    op.create_table(
        "erasures",
        sa.Column("viewer", sa.LargeBinary, primary_key=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table("erased_events", sa.Column("event_id", sa.Uuid, primary_key=True))


def downgrade() -> None:
    """Drop the tables. Erased views that are still on their way then come back."""
    op.drop_table("erased_events")
    op.drop_table("erasures")
