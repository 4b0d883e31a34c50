"""What Flixtrail is compared with: other ways to the same rows, tuned as their own documentation advises.

All peers use persistent messages, confirms, late acknowledgement and a quorum queue. They write the same columns with
`ON CONFLICT DO NOTHING`. None of them authenticates, validates or derives anything, which makes them faster.
"""
