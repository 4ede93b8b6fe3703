"""What does a run compute? Budget, layers, images, units, and the cost of passes."""
