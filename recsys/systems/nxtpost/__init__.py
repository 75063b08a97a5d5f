"""NxtPost: a two-tower causal transformer over content embeddings."""
