"""Models that are trained again on a log that grows: one generation after the other."""
