"""Finds out who sent a request: a viewer with a cookie or a token, or a service that records for any viewer."""
