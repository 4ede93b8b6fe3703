"""What does a run make, and of what? Budget, layers, images, units, and what passes cost."""
