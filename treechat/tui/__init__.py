"""The window."""

import os

FPS = 120
"""Textual, which reads the variable when it is imported, makes 60 by itself: what is painted right behind a token's
frame, as a key's effect while a reply streams, then waits for up to two of its frames."""

os.environ.setdefault("TEXTUAL_FPS", str(FPS))
