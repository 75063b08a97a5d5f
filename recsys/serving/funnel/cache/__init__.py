"""What the second stage has scored for a user before, used again."""
