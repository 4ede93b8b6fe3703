"""Which parts of an image decided, and was it a shortcut?"""
