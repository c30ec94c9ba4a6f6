"""`design`: the networks that fill a budget. exact.py finds them, in the ranges of ranges.py, by the rule of expected.py, and
without torch; latency.py and scores.py build what it found."""
