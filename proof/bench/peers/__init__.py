"""What Flixtrail is compared with: other ways to the same rows, tuned as their own documentation advises.

All are persistent, confirmed and acknowledged late, on a quorum queue, and write the same columns with
`ON CONFLICT DO NOTHING`. None of them authenticates, validates or derives anything: that is to their advantage.
"""
