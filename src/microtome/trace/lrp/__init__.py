"""Layer-wise relevance propagation: backward rules of linear layers, norms, products and attention."""
