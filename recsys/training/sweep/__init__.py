"""`recsys sweep`: a search over settings, described in the format of Weights & Biases."""
