"""Programs that test Flixtrail's promises: chaos runs, load tests and benchmarks."""
