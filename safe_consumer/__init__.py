"""A Celery worker that commits, then acknowledges: no message is lost, and none counts twice."""
