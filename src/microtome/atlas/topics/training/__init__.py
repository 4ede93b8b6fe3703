"""How did the network get there? Topics of the training that it comes from, where its run is given."""
