"""What came of a run, for people: the measurements of its checkpoints, the findings in words, one HTML page."""
