"""Row space and null space: what a layer reads of its input and what it rejects."""
