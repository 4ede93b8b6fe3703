"""How are loss surfaces and information planes drawn?"""
