"""Trained models as sources and scorers of a funnel."""
