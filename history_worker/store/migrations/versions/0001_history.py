"""The view events, and the playbacks derived from them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import NUMMULTIRANGE

revision = "0001"
down_revision = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables. Never edit a migration: it records a step of the past. `tables.py` has the current schema."""
    op.create_table(
        "view_events",
        sa.Column("event_id", sa.Uuid, primary_key=True),
        sa.Column("viewer_id", sa.Text, nullable=False),
        sa.Column("video_id", sa.Text, nullable=False),
        sa.Column("playback_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("position_s", sa.Double, nullable=False),
        sa.Column("played_from_s", sa.Double),
        sa.Column("at", _time, nullable=False),
        sa.Column("received_at", _time, nullable=False),
    )
    op.create_table(
        "playbacks",
        sa.Column("viewer_id", sa.Text, primary_key=True),
        sa.Column("playback_id", sa.Uuid, primary_key=True),
        sa.Column("video_id", sa.Text, primary_key=True),
        sa.Column("started_at", _time, nullable=False),
        sa.Column("last_at", _time, nullable=False),
        sa.Column("last_event_id", sa.Uuid, nullable=False),
        sa.Column("position_s", sa.Double, nullable=False),
        sa.Column("finished", sa.Boolean, nullable=False),
        sa.Column("played", NUMMULTIRANGE, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
    )
    op.create_index(
        "playbacks_newest_first",
        "playbacks",
        ["viewer_id", sa.text("last_at DESC"), sa.text("playback_id DESC"), sa.text("video_id DESC")],
    )


def downgrade() -> None:
    """Drop the tables. The history is lost."""
    op.drop_table("playbacks")
    op.drop_table("view_events")
