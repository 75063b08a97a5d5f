"""User encoders: pooled slices in, a fixed number of user vectors out."""
