"""What is measured, each file by its own command: ``python -m benchmarks.NAME``."""
