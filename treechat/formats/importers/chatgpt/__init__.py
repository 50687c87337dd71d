"""Import ChatGPT's data export."""
