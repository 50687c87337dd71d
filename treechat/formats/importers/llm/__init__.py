"""Import the database of the `llm` command."""
