"""Modal screens over the conversation, one per file."""
