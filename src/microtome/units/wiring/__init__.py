"""How a unit is made: filters, connections, dissected activations."""
