"""One file or folder per foreign format; `registry` lists them."""
