"""The migrations: the schema of the history database, step by step."""
