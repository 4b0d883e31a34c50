"""The subcommands of `flixtrail`, one in each file."""
