"""Background work of a window: plain objects with public methods, created by `TreechatApp`."""
