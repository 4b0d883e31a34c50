"""The schema of the history database, step by step."""
