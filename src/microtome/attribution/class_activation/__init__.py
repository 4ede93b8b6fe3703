"""Class activation maps: CAM, Grad-CAM and guided Grad-CAM, and the layer that they read."""
