"""Train, evaluate, export and serve long-history recommenders, from one CPU to many GPU nodes."""

__version__ = "0.1.0"
