"""`recsys study`: variants of one run beside each other, over several seeds."""
