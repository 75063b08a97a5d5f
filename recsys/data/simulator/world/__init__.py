"""The simulator as an environment that is played: any item at any moment, and what follows."""
