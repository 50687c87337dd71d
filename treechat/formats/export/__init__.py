"""Documents as Markdown, HTML, OpenAI JSONL and diagrams."""
