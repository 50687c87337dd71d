"""Attention of one forward, and the context with its slots."""
