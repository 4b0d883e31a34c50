"""Kills everything, again and again, and counts what was lost and what was stored twice."""
