"""From which inputs and weights is a unit computed? Filters, connections, dissections."""
