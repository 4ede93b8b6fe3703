"""The benchmarks. Each file runs by its own command: ``python -m benchmarks.NAME``."""
