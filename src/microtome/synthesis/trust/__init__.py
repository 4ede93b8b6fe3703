"""May a made image stand for its unit? Percentile, agreement of restarts, similarity of paths, a second network."""
