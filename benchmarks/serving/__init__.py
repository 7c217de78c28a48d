"""Edgemask's daemon beside other model servers: `python -m benchmarks.serving`."""
