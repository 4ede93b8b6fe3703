"""Data sets with a name: MNIST, Fashion-MNIST and small digits, and how their files are read and kept."""
