"""DV365: user embeddings from long timelines, trained inside a DLRM."""
