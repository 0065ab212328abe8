"""What `make bench` measures. Each module has `rows()`; each row is a ratio of two things run in turn in the same call, or a rate."""
