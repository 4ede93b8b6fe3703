"""How are images optimised: coordinates, steps, penalties and priors?"""
