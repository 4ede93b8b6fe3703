"""One pass over a data set: top patches, statistics, distributions and similarity of units."""
