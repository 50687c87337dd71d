"""Loading a model, and the forward it runs."""
