"""Import and export of conversations: values in, values out. `document` defines the values."""
