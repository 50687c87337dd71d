"""Background work that the window holds as plain objects."""
