"""Pages and tables of runs, whatever system they are of."""
