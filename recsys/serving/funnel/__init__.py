"""The funnel: sources, filters, a first and a second stage, a value model and a reranking."""
