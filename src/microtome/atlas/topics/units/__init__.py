"""What does the atlas show of each unit?"""
