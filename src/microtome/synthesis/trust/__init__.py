"""Does a superstimulus represent its unit? Percentile, agreement of restarts, similarity of paths, a second network."""
