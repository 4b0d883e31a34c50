"""The steps of the schema, one migration in each file, in the order of their numbers."""
