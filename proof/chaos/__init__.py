"""Kills every part again and again, and counts how many views were lost or stored twice."""
