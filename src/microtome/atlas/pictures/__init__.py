"""How do tensors become the picture files of a site?"""
