"""How does a browser reach the network? Endpoints, the socket, the queue of computations, and checks of requests."""
