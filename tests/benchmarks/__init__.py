"""What `make bench` measures: `rows()` of each module. A row is a ratio of two things run in turn, or a rate."""
