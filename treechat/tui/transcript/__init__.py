"""The transcript: one path of messages in a scroll view."""
