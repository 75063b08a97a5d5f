"""A funnel answering over HTTP."""
