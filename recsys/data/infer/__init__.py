"""From files that nobody has described to a draft of their description."""
