"""Load on a real service: `make loadtest`."""
