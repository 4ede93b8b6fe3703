"""Linear regions of piecewise linear networks: facets, exact affine maps, paths across regions."""
