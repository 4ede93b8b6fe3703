"""Which networks are included, layer by layer?"""
