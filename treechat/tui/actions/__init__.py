"""What keys do: one flat mixin over `Window` per file, all named in `app.py`."""
