"""How is a forward pass watched, changed and stopped?"""
