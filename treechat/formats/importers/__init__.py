"""Import foreign formats: one file or folder per format; `registry` lists them."""
