"""Linear operators of layers and of parts of networks: products with them and with their transposes."""
