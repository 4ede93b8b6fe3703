"""How does training go, and where does it end?"""
