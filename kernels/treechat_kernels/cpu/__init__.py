"""Attention on the CPU over contiguous slots."""
