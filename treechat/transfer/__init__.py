"""Import and export jobs between files and the store."""
