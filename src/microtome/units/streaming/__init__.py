"""Which images activate a unit, and how are its activations distributed? Measured in one pass over a data set."""
