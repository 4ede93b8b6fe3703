"""How does the network respond to this picture? Each answer is a result of the library, as a frame for the screen."""
