"""Who was erased and when, and which events: so that nothing of it comes back.

The workers read `erasures`, and read and add to `erased_events`. Who erases writes both, and deletes from `view_events`
and `playbacks`. The history API needs neither. Finish the update of all workers before the first erase: one from before
this migration does not look.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Two new tables; what is stored already is not touched."""
    op.create_table(
        "erasures",
        sa.Column("viewer", sa.LargeBinary, primary_key=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table("erased_events", sa.Column("event_id", sa.Uuid, primary_key=True))


def downgrade() -> None:
    """Forgets who was erased: what is still on its way comes back."""
    op.drop_table("erased_events")
    op.drop_table("erasures")
