"""How fast Flixtrail is, told as ratios to other ways of doing the same, measured in one run on one machine."""
