"""Softmaxes over pools of items."""
