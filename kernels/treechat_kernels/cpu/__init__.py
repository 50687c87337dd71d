"""Attention on the CPU over extents of slots, read in place."""
