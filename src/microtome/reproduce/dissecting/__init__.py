"""The article that dissects a convolutional network: its statements compared with measurements on our own network."""
