"""What shows that Flixtrail keeps its promises."""
