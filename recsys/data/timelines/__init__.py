"""The timeline store: two columnar, memory-mapped timelines per user."""
