"""The database of the `llm` command."""
