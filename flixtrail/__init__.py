"""The command line: starts all of Flixtrail on one machine, and shows what happens in it."""
