"""Which operator is a call, whatever its spelling, and what does it do?"""
