"""Build a tree of messages from records."""
