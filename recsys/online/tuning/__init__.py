"""Numbers of a funnel's configuration, tuned."""
