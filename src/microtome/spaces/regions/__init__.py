"""Linear regions of piecewise linear networks: affine maps, facets, distances and paths."""
