"""Distributed Shampoo: a Kronecker-factored optimiser, spread over the data-parallel ranks."""
