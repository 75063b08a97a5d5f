"""The stages of recommending; each module holds one step, or steps of one kind."""
