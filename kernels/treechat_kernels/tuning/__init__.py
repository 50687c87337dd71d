"""Tile sizes: candidates, measurements, and the file that keeps the choice."""
