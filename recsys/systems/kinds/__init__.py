"""What systems of one kind share."""
