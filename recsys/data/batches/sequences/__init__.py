"""Histories of engagements cut where a query may look, as one batch."""
