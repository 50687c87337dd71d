"""From records to a tree of messages."""
