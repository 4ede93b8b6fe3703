"""How are units, their tuning, filters and dissections drawn?"""
