"""The article that dissects a convolutional network: its statements beside what our own network shows."""
