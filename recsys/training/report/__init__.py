"""report.html of a run, and the table a run ends with."""
