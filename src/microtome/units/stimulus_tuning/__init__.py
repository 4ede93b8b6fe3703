"""Tuning of units: synthetic stimuli, responses, tuning curves, labels."""
