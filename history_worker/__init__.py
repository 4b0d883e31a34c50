"""The history service: workers that write view events to PostgreSQL, and an API that answers what a viewer watched."""
