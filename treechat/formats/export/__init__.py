"""Write documents as Markdown, HTML, OpenAI JSONL, DOT and Mermaid."""
