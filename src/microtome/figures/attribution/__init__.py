"""How are maps, their quality and shares of shortcuts drawn?"""
