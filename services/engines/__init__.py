"""Checkpoints that answer: a replica owns one engine and changes its weights under leases."""
