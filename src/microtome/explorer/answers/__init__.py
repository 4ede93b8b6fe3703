"""What does the network make of this picture? Each answer is a result of the library, as a frame for the screen."""
