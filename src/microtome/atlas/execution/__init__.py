"""How are tasks executed: in which order, in which processes, by which run?"""
