"""From the outputs of a network back to images."""
