"""Which synthetic stimuli is a unit tuned to? Stimuli, responses, tuning curves, labels."""
