"""Records views: checks and limits requests, and brings their events to the broker or into the outbox."""
