"""The load test: people who browse and watch, services that send batches, and proof of what became of every event."""
