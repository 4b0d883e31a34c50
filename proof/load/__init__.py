"""The load test: viewers who browse and watch, services that send batches, and a check of every event afterwards."""
