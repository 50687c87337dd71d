"""The model of a chat: loaded, replaced, its KV kept in files."""
