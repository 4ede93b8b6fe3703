"""How was the network trained? Topics of its training, if the run is given."""
