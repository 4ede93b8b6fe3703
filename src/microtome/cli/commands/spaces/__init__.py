"""What do layers keep, and what do they reject?"""
