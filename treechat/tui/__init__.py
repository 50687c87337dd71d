"""The Textual app: window, tree pane, transcript, composer and screens."""

import os

FPS = 120
"""Textual draws at most this many frames per second; it reads the variable at import. With its default of 60, the
effect of a key that follows a streamed token's frame would be painted up to two of its frames later."""

os.environ.setdefault("TEXTUAL_FPS", str(FPS))
