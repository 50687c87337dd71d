"""Load a model, and run its forward."""
