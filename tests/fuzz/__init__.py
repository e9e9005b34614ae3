"""Damaged and hostile files for every reader of what comes from outside, from seeds: a failure comes again.

`python -m fuzz [READER ...] --count N --seed S`, with tests/ as the working folder, runs longer than the tests do.
"""
