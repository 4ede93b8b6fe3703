"""How are weights read from files, whatever their names and wrappers?"""
