"""How are signal spaces, inverses and linear regions drawn?"""
