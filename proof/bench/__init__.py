"""Measures how fast Flixtrail is, as ratios to other ways of doing the same, in one run on one machine."""
