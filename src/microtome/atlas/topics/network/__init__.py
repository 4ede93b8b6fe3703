"""What does the atlas show of the network as a whole and of its layers?"""
