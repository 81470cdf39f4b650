"""Benchmarks: what a decision costs, what it waits for, and how that grows. `make bench`; see __main__.py."""
