"""What does the atlas show of each image?"""
