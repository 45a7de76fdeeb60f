"""Benchmarks: each checks its results before it times them, and times both sides in turns within one run."""
