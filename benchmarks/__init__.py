"""What is measured, each against a named peer or a limit: `recsys bench --list`."""
