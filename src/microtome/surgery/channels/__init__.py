"""Which entries of which weights belong to one channel, and how is a channel removed?"""
