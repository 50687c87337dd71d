"""Measurements and checks when an engine starts."""
