"""What does the explorer look like? Templates, scripts and styles of its pages."""
