"""Benchmarks on real processes; each runs as `python -m benchmarks.NAME`."""
