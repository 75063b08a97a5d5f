"""A check of nodes before a run: who answers, what is installed, how fast they exchange."""
