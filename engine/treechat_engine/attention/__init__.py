"""Attention of one forward, and the context that tells it which slots to use."""
