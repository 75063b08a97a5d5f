"""What is known of a candidate at a moment: counters of the whole log, counts of the user's own."""
