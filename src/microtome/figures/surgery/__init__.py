"""How are smaller and converted networks drawn?"""
