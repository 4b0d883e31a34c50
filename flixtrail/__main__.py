"""`python -m flixtrail`: the command line."""

from flixtrail.cli import main

main()
