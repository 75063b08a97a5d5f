"""What is known of items beside who engaged with them: texts and given embeddings."""
