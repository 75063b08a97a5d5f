"""The ranker: the second stage of a funnel, which scores the candidates of a request."""
