"""How vectors of users, items and contexts are brought together."""
